"""SSH_PROXY_V1: the line of 1.0's command line leads to a VPS's own sshd, and to nothing else."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kohakuriver.models.enums import SshKeyMode, TaskState
from support.clients.vps_sshd import make_key, public_key_of
from support.host.gateway import HELENS, IVANS, GatewayHarness, gateway, greeting, vps

SECONDS = 20
SAYS = b"SSH-2.0-session\r\n"


@pytest.fixture
def sshd() -> Iterator[socket.socket]:
    """A VPS's sshd, as far as it is seen: it can be connected to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SECONDS)
        yield listener


def harness_of(sshd: socket.socket, key: str, *, takes_earlier: bool = True) -> GatewayHarness:
    harness = GatewayHarness(takes_earlier=takes_earlier)
    harness.add(vps(HELENS, "helen", "lab", (key,)), sshd.getsockname()[1])
    return harness


@pytest.fixture
def harness(sshd: socket.socket, tmp_path: Path) -> Iterator[GatewayHarness]:
    with gateway(harness_of(sshd, public_key_of(make_key(tmp_path / "helen")))) as running:
        yield running


def connect(harness: GatewayHarness, said: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", harness.port), SECONDS)
    connection.sendall(said)
    return connection


def answer_to(harness: GatewayHarness, said: bytes) -> bytes:
    """All that is said to who says this and nothing more."""
    with connect(harness, said) as connection:
        heard = b""
        while (piece := connection.recv(1000)) and not heard.startswith(b"SSH-"):
            heard += piece
        return heard + piece


def test_the_line_leads_to_the_vps_own_sshd_both_ways(harness: GatewayHarness, sshd: socket.socket) -> None:
    with connect(harness, b"REQUEST_TUNNEL %d\nSSH-2.0-client\r\n" % HELENS) as client:
        inner, _ = sshd.accept()
        with inner:
            inner.settimeout(SECONDS)
            inner.sendall(SAYS)
            heard = b""
            while len(heard) < len(b"SUCCESS\n" + SAYS):
                heard += client.recv(1000)
            assert heard == b"SUCCESS\n" + SAYS
            assert inner.recv(1000) == b"SSH-2.0-client\r\n"
            client.sendall(b"more")
            assert inner.recv(1000) == b"more"
            inner.close()
            assert client.recv(1000) == b""
    (line,) = harness.lines("ssh.open done")
    assert line["object"] == str(HELENS)


def test_a_line_in_pieces_is_one_line(harness: GatewayHarness, sshd: socket.socket) -> None:
    with connect(harness, b"REQ") as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"UEST_TUNNEL %d\n" % HELENS:
            client.sendall(bytes([byte]))
        assert client.recv(1000) == b"SUCCESS\n"


@pytest.mark.parametrize(
    "change",
    [
        {"state": TaskState.PAUSED},
        {"state": TaskState.STOPPED},
        {"mode": SshKeyMode.NONE},
        {"mode": SshKeyMode.DISABLED},
    ],
)
def test_other_vps_are_answered_like_none(harness: GatewayHarness, change: dict[str, object]) -> None:
    harness.add(vps(IVANS, "ivan", "attic", **change))  # type: ignore[arg-type]
    refused = answer_to(harness, b"REQUEST_TUNNEL %d\n" % IVANS)
    assert refused.startswith(b"ERROR ")
    assert refused == answer_to(harness, b"REQUEST_TUNNEL 7\n")
    assert len(harness.lines("ssh.open refused")) == 2


@pytest.mark.parametrize("rest", [b"\n", b"lab\n", b"5353\n", b"7 22\n", b"-7\n", b"\xd9\xa7\n"])
def test_what_is_no_whole_id_leads_nowhere(harness: GatewayHarness, rest: bytes) -> None:
    assert answer_to(harness, b"REQUEST_TUNNEL " + rest).startswith(b"ERROR ")


def test_a_vps_that_does_not_answer_is_reported_without_a_word_of_its_node(
    harness: GatewayHarness, sshd: socket.socket
) -> None:
    sshd.close()
    answer = answer_to(harness, b"REQUEST_TUNNEL %d\n" % HELENS)
    assert answer == b"ERROR the VPS does not answer now; try again later\n"
    (line,) = harness.lines("ssh.open refused")
    assert "nothing listens" in line["reason"]


def test_a_line_without_end_is_not_listened_to(harness: GatewayHarness) -> None:
    said = b"REQUEST_TUNNEL " + b"7" * 100
    with connect(harness, said) as client, contextlib.suppress(ConnectionResetError):
        assert client.recv(1000) == b""


def test_ssh_clients_are_greeted_whether_they_speak_first_or_not(harness: GatewayHarness) -> None:
    assert answer_to(harness, b"SSH-2.0-client\r\n").startswith(b"SSH-2.0-KohakuRiver")
    assert greeting(harness.port).startswith(b"SSH-2.0-KohakuRiver")


def test_a_tunnel_ends_with_its_vps(harness: GatewayHarness, sshd: socket.socket) -> None:
    with connect(harness, b"REQUEST_TUNNEL %d\n" % HELENS) as client:
        assert client.recv(1000) == b"SUCCESS\n"
        harness.change(HELENS, state=TaskState.STOPPED)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1000) == b""


def test_without_the_setting_the_line_leads_nowhere(sshd: socket.socket, tmp_path: Path) -> None:
    made = harness_of(sshd, public_key_of(make_key(tmp_path / "helen")), takes_earlier=False)
    with gateway(made) as harness:
        assert answer_to(harness, b"REQUEST_TUNNEL %d\n" % HELENS).startswith(b"SSH-2.0-KohakuRiver")
        assert harness.lines("ssh.open done") == []
