"""Attacks on the SSH gateway: who is let in, what is opened for them, what they can make it do or write."""

import asyncio
import contextlib
import json
import select
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from kohakuriver.host.auth import Actor
from kohakuriver.host.gateway import gateway as gateway_module
from kohakuriver.host.gateway import tcp_connection
from kohakuriver.host.gateway.login_limiter import MOST_PER_ADDRESS, MOST_WAITING_PER_ADDRESS
from kohakuriver.host.gateway.ssh_connection import MOST_CHANNELS, MOST_LOGIN_ATTEMPTS, MOST_REFUSALS
from kohakuriver.logging_setup import redacted
from kohakuriver.models.enums import Role, SshKeyMode, TaskState
from support.clients.vps_sshd import make_key, public_key_of
from support.host.gateway import HELEN, HELENS, IVAN, IVANS, ODA, GatewayHarness, gateway, greeting, vps
from support.machine.processes import wait_until

SOON_SECONDS = 10
"""Far below any timeout that would end a connection for another reason."""


class EchoServer:
    """Stands in for a VPS's SSH: answers each piece with itself, and counts what it could send.

    With `flood` it sends without end instead, with `mute` it says nothing and never ends.
    """

    def __init__(self, flood: bool = False, mute: bool = False) -> None:
        self.flood = flood
        self.mute = mute
        self.sent_bytes = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.flood:
                while True:
                    writer.write(bytes(65536))
                    await writer.drain()
                    self.sent_bytes += 65536
            while self.mute:
                await reader.read()
                await asyncio.sleep(3600)
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # the other end is what is tested
        finally:
            writer.close()


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    return {name: make_key(tmp_path / name) for name in ("helen", "ivan", "stranger")}


@pytest.fixture
def harness(keys: dict[str, Path], tmp_path: Path) -> Iterator[GatewayHarness]:
    """Helen's VPS and Ivan's, each with its owner's key."""
    made = GatewayHarness()
    made.add(vps(HELENS, "helen", "lab", (public_key_of(keys["helen"]),)))
    made.add(vps(IVANS, "ivan", "attic", (public_key_of(keys["ivan"]),)))
    with gateway(made):
        yield made


def play(harness: GatewayHarness, scenario: Callable[[EchoServer], Awaitable[None]], **kind: bool) -> None:
    """Run a scenario while VPSs answer."""

    async def run() -> None:
        echo = EchoServer(**kind)
        port = await echo.start()
        harness.dials = dict.fromkeys(harness.vps, port)
        async with asyncio.timeout(60):
            await scenario(echo)

    asyncio.run(run())


@asynccontextmanager
async def connected(
    harness: GatewayHarness, token: str | None = None, key: Path | None = None, **options: Any
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    connection = await asyncssh.connect(
        "127.0.0.1",
        harness.port,
        known_hosts=([asyncssh.import_public_key(harness.public_key)], [], []),
        password=token,
        client_keys=[str(key)] if key else None,
        agent_path=None,
        config=None,
        **{"username": "anyone", **options},
    )
    async with connection:
        yield connection


async def echoed(connection: asyncssh.SSHClientConnection, host: str, port: int = 22) -> bytes:
    """What a VPS says to `hello`; raises ChannelOpenError if there is no way to it."""
    reader, writer = await connection.open_connection(host, port, encoding=None)
    writer.write(b"hello")
    writer.write_eof()
    said: bytes = await reader.read()
    writer.close()
    return said


async def refusal(connection: asyncssh.SSHClientConnection, host: str, port: int = 22) -> str:
    with pytest.raises(asyncssh.ChannelOpenError) as refused:
        await echoed(connection, host, port)
    return refused.value.reason


async def echoed_first(connection: asyncssh.SSHClientConnection, host: str) -> bytes:
    reader, writer = await connection.open_connection(host, 22, encoding=None)
    said: bytes = await reader.readexactly(5)
    writer.close()
    return said


async def settled(echo: EchoServer) -> None:
    """Wait until a VPS that floods can send no more."""
    before = -1
    async with asyncio.timeout(30):
        while echo.sent_bytes != before or not before:
            before = echo.sent_bytes
            await asyncio.sleep(0.5)


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(SOON_SECONDS):
        while not condition():
            await asyncio.sleep(0.02)
    assert condition(), what


def test_nobody_gets_in_without_a_credential_or_with_one_that_is_worth_nothing(
    harness: GatewayHarness, keys: dict[str, Path]
) -> None:
    async def scenario(_: EchoServer) -> None:
        for credential in ({}, {"token": "kr_made-up"}, {"key": keys["stranger"]}, {"token": ""}):
            with pytest.raises(asyncssh.PermissionDenied):
                async with connected(harness, **credential):
                    pass

    play(harness, scenario)
    assert not harness.lines("ssh.login done")
    assert {"by token", "by public key"} == {
        line["detail"].split(" as ")[0] for line in harness.lines("ssh.login refused")
    }
    assert all(line["address"] == "127.0.0.1" for line in harness.lines("ssh.login refused"))


def test_a_token_opens_what_its_user_may_use_by_every_name_that_it_has(harness: GatewayHarness) -> None:
    async def scenario(_: EchoServer) -> None:
        names = (
            "lab",
            "LAB",
            "lab.kohakuriver",
            str(HELENS),
            f"vps-{HELENS}",
            "4242",
            "vps-004242.kohakuriver",
        )
        async with connected(harness, HELEN) as connection:
            for name in names:
                assert await echoed(connection, name) == b"hello", name
        async with connected(harness, ODA) as operator:
            assert await echoed(operator, "lab") == b"hello"
            assert await echoed(operator, "attic") == b"hello"

    play(harness, scenario)
    opened = harness.lines("ssh.open done")
    assert {(line["actor"], int(line["object"])) for line in opened} == {
        ("helen", HELENS),
        ("oda", HELENS),
        ("oda", IVANS),
    }


def test_another_users_vps_is_refused_as_one_that_does_not_exist(harness: GatewayHarness) -> None:
    async def scenario(_: EchoServer) -> None:
        async with connected(harness, IVAN) as connection:
            foreign = {await refusal(connection, name) for name in ("lab", str(HELENS), "4242", "vps-4242")}
            unknown = {await refusal(connection, name) for name in ("cellar", "310000000000009999", "9999")}
            assert foreign == unknown
            assert len(foreign) == 1

    play(harness, scenario)
    refused = harness.lines("ssh.open refused")
    assert {"lab:22", f"{HELENS}:22", "cellar:22"} <= {line["object"] for line in refused}
    assert {line["actor"] for line in refused} == {"ivan"}
    assert not harness.lines("ssh.open done")


def test_a_key_opens_its_own_vps_and_no_other_of_the_same_owner(
    harness: GatewayHarness, keys: dict[str, Path]
) -> None:
    harness.change(IVANS, owner="helen")

    async def scenario(_: EchoServer) -> None:
        async with connected(harness, key=keys["helen"], username="root") as connection:
            assert await echoed(connection, "lab") == b"hello"
            assert "no VPS" in await refusal(connection, "attic")

    play(harness, scenario)


def test_a_key_that_was_shown_and_not_proven_gives_nothing_to_who_then_logs_in_otherwise(
    harness: GatewayHarness, keys: dict[str, Path]
) -> None:
    class Impostor(asyncssh.SSHClient):
        """Shows Helen's public key, signs with another, then gives Ivan's token."""

        def public_key_auth_requested(self) -> Any:
            if self.shown:
                return None
            self.shown = True
            pair = asyncssh.load_keypairs(str(keys["stranger"]))[0]
            helens = asyncssh.read_public_key(f"{keys['helen']}.pub").public_data
            pair.public_data = pair.key_public_data = helens
            return pair

        shown = False

    async def scenario(_: EchoServer) -> None:
        async with connected(harness, IVAN, client_factory=Impostor) as connection:
            assert "no VPS" in await refusal(connection, "lab")
            assert await echoed(connection, "attic") == b"hello"
        with pytest.raises(asyncssh.PermissionDenied):
            async with connected(harness, client_factory=Impostor):
                pass

    play(harness, scenario)
    assert [line["actor"] for line in harness.lines("ssh.login done")] == ["ivan"]


def test_nothing_but_connections_is_offered(harness: GatewayHarness, tmp_path: Path) -> None:
    async def scenario(_: EchoServer) -> None:
        async with connected(harness, ODA) as connection:
            asked: list[Callable[[], Awaitable[Any]]] = [
                lambda: connection.run("id"),
                lambda: connection.run(None, term_type="xterm"),
                lambda: connection.run("id", x11_forwarding=True, x11_display=":0"),
                connection.start_sftp_client,
                lambda: connection.open_unix_connection("/run/docker.sock"),
                connection.open_tun,
                connection.open_tap,
                lambda: connection.forward_remote_port("", 0, "127.0.0.1", 22),
                lambda: connection.forward_remote_path(str(tmp_path / "socket"), str(tmp_path / "other")),
            ]
            for ask in asked:
                with pytest.raises((asyncssh.ChannelOpenError, asyncssh.ChannelListenError)) as refused:
                    await ask()
                if isinstance(refused.value, asyncssh.ChannelOpenError):
                    assert "VPSs and nothing else" in refused.value.reason
            assert await echoed(connection, "lab") == b"hello"  # none of it harmed the connection

    play(harness, scenario)
    assert [line["detail"] for line in harness.lines("ssh.open refused")] == [
        *(["session"] * 4),
        "socket",
        "tunnel",
        "tunnel",
        "remote port forwarding",
        "remote socket forwarding",
    ]


def test_other_ports_and_other_machines_are_out_of_reach(harness: GatewayHarness) -> None:
    async def scenario(_: EchoServer) -> None:
        async with connected(harness, ODA) as connection:
            for port in (80, 8000, 2, 0, 65536 + 22):
                assert "ssh ID -L" in await refusal(connection, "lab", port)
            for host in ("localhost", "127.0.0.1", "::1", "", "../lab", "lab\nattic", "l" * 5000, "%h", "*"):
                assert "no VPS" in await refusal(connection, host)

    play(harness, scenario)
    assert not harness.lines("ssh.open done")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"state": TaskState.PAUSED}, "resume"),
        ({"state": TaskState.STOPPED}, "stopped"),
        ({"state": TaskState.ASSIGNING}, "assigning"),
    ],
)
def test_a_vps_that_does_not_run_is_refused_with_its_state(
    harness: GatewayHarness, change: dict[str, Any], says: str
) -> None:
    harness.change(HELENS, **change)

    async def scenario(_: EchoServer) -> None:
        async with connected(harness, HELEN) as connection:
            assert says in await refusal(connection, "lab")

    play(harness, scenario)


def test_vps_without_ssh_or_without_a_listener_say_so(harness: GatewayHarness) -> None:
    harness.add(vps(HELENS, "helen", "lab", mode=SshKeyMode.DISABLED))

    async def scenario(_: EchoServer) -> None:
        async with connected(harness, HELEN) as connection:
            assert "kohakuriver connect" in await refusal(connection, "lab")
        harness.dials[IVANS] = 1
        async with connected(harness, IVAN) as connection:
            assert "nothing listens" in await refusal(connection, "attic")

    play(harness, scenario)


def test_who_asks_without_end_for_what_it_cannot_have_is_cut_off(harness: GatewayHarness) -> None:
    async def scenario(_: EchoServer) -> None:
        async with connected(harness, IVAN) as connection:
            for _number in range(MOST_REFUSALS):
                await refusal(connection, "lab")
            await asyncio.wait_for(connection.wait_closed(), SOON_SECONDS)

    play(harness, scenario)
    assert len(harness.lines("ssh.open refused")) == MOST_REFUSALS


def test_tokens_cannot_be_tried_one_after_the_other_without_end(harness: GatewayHarness) -> None:
    class Guessing(asyncssh.SSHClient):
        guesses = 0

        def password_auth_requested(self) -> str:
            Guessing.guesses += 1
            return f"kr_guess-number-{Guessing.guesses}"

    async def scenario(_: EchoServer) -> None:
        with pytest.raises(asyncssh.Error):
            async with connected(harness, client_factory=Guessing):
                pass

    play(harness, scenario)
    assert len(harness.lines("ssh.login refused")) == MOST_LOGIN_ATTEMPTS
    assert Guessing.guesses <= MOST_LOGIN_ATTEMPTS + 1


def test_a_connection_carries_so_many_others_and_no_more(harness: GatewayHarness) -> None:
    async def scenario(_: EchoServer) -> None:
        async with connected(harness, HELEN) as connection:
            opened = [
                await connection.open_connection("lab", 22, encoding=None) for _ in range(MOST_CHANNELS)
            ]
            assert str(MOST_CHANNELS) in await refusal(connection, "lab")
            opened[0][1].close()
            async with asyncio.timeout(SOON_SECONDS):
                while len(harness.lines("ssh_closed")) < 1:
                    await asyncio.sleep(0.02)
            assert await echoed(connection, "lab") == b"hello"

    play(harness, scenario)


def test_connections_that_say_nothing_are_bounded_for_each_address_and_let_others_in(
    harness: GatewayHarness,
) -> None:
    with contextlib.ExitStack() as held:

        def pending() -> socket.socket:
            return held.enter_context(socket.create_connection(("127.0.0.1", harness.port), SOON_SECONDS))

        silent = [pending() for _ in range(MOST_PER_ADDRESS)]
        assert all(each.recv(100).startswith(b"SSH-2.0-KohakuRiver") for each in silent)
        waiting = [pending() for _ in range(MOST_WAITING_PER_ADDRESS)]
        with contextlib.suppress(ConnectionResetError):
            assert pending().recv(100) == b""  # turned away
        assert greeting(harness.port, "127.0.0.2").startswith(b"SSH-2.0-KohakuRiver")
        wait_until(
            lambda: bool(harness.lines("ssh_connections_turned_away")), SOON_SECONDS, "a line about it"
        )
        assert not select.select(waiting, [], [], 0)[0]
        silent[0].close()
        assert waiting[0].recv(100).startswith(b"SSH-2.0-KohakuRiver")
    told = harness.lines("ssh_connections_turned_away")[0]
    assert (told["count"], told["addresses"]) == (1, ["127.0.0.1"])
    wait_until(lambda: _is_greeted(harness.port), SOON_SECONDS, "room again")


def test_who_waits_too_long_for_room_is_sent_away(
    harness: GatewayHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_connection, "PATIENCE_SECONDS", 0.2)
    with contextlib.ExitStack() as held:
        for _number in range(MOST_PER_ADDRESS):
            held.enter_context(socket.create_connection(("127.0.0.1", harness.port), SOON_SECONDS)).recv(100)
        with contextlib.suppress(ConnectionResetError):
            assert greeting(harness.port) == b""


def _is_greeted(port: int) -> bool:
    try:
        return greeting(port) != b""
    except ConnectionResetError:
        return False


def test_a_login_makes_room_for_the_next_one(harness: GatewayHarness) -> None:
    async def log_in(held: contextlib.AsyncExitStack) -> None:
        await held.enter_async_context(connected(harness, HELEN))

    async def scenario(_: EchoServer) -> None:
        async with contextlib.AsyncExitStack() as held, asyncio.TaskGroup() as at_once:
            for _number in range(MOST_PER_ADDRESS + 20):
                at_once.create_task(log_in(held))

    play(harness, scenario)


def test_a_handshake_that_takes_its_time_is_ended(
    keys: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_module, "LOGIN_SECONDS", 0.5)
    harness = GatewayHarness()
    with gateway(harness):
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", harness.port), SOON_SECONDS) as slow:
            slow.sendall(b"SSH-2.0-slow\r\n")
            while slow.recv(65536):
                pass
        assert time.monotonic() - began < SOON_SECONDS


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(b"x" * 65536, id="no end of line"),
        pytest.param(b"SSH-2.0-" + b"y" * 65536, id="a long version"),
        pytest.param(b"\0" * 65536, id="zeros"),
        pytest.param(b"\r\n" * 32768, id="empty lines"),
    ],
)
def test_a_flood_in_place_of_a_banner_is_cut_off(harness: GatewayHarness, flood: bytes) -> None:
    with socket.create_connection(("127.0.0.1", harness.port), SOON_SECONDS) as hostile:
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                hostile.sendall(flood)
        with contextlib.suppress(ConnectionError):
            while hostile.recv(65536):
                pass
    assert _is_greeted(harness.port)


def test_a_token_that_is_revoked_takes_its_connections_with_it_and_no_others(harness: GatewayHarness) -> None:
    async def scenario(_: EchoServer) -> None:
        async with connected(harness, ODA) as kept:
            reader, writer = await kept.open_connection("lab", 22, encoding=None)
            async with connected(harness, HELEN) as lost:
                await lost.open_connection("lab", 22, encoding=None)
                harness.put_token(HELEN, None)
                await asyncio.wait_for(lost.wait_closed(), SOON_SECONDS)
            writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"

    play(harness, scenario)
    assert [line["actor"] for line in harness.lines("ssh_ended") if "rights" in line["reason"]] == ["helen"]
    wait_until(lambda: len(harness.lines("ssh_closed")) == 2, SOON_SECONDS, "both to be closed")


@pytest.mark.parametrize(
    ("credential", "loss"),
    [
        ("token", lambda harness: harness.change(HELENS, state=TaskState.STOPPED)),
        ("token", lambda harness: harness.remove(HELENS)),
        ("token", lambda harness: harness.change(HELENS, owner="ivan")),
        ("key", lambda harness: harness.remove(HELENS)),
        ("key", lambda harness: harness.add(vps(HELENS, "helen", "lab"))),
    ],
)
def test_a_connection_ends_with_its_vps_or_with_the_right_to_it(
    harness: GatewayHarness, keys: dict[str, Path], credential: str, loss: Callable[[GatewayHarness], None]
) -> None:
    async def scenario(_: EchoServer) -> None:
        given: dict[str, Any] = {"token": HELEN} if credential == "token" else {"key": keys["helen"]}
        async with connected(harness, **given) as connection:
            reader, writer = await connection.open_connection("lab", 22, encoding=None)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            loss(harness)
            with contextlib.suppress(asyncssh.Error):
                assert await asyncio.wait_for(reader.read(), SOON_SECONDS) == b""

    play(harness, scenario)
    assert harness.lines("ssh_ended")


def test_a_role_that_was_lowered_ends_what_the_higher_one_opened(harness: GatewayHarness) -> None:
    async def scenario(_: EchoServer) -> None:
        async with connected(harness, ODA) as connection:
            await connection.open_connection("lab", 22, encoding=None)
            harness.put_token(ODA, Actor("oda", Role.USER))
            await asyncio.wait_for(connection.wait_closed(), SOON_SECONDS)

    play(harness, scenario)


def test_a_client_that_does_not_read_is_not_written_to_without_bounds(harness: GatewayHarness) -> None:
    async def scenario(echo: EchoServer) -> None:
        async with connected(harness, HELEN) as connection:

            class Deaf(asyncssh.SSHTCPSession[bytes]):
                pass

            await connection.create_connection(Deaf, "lab", 22, encoding=None, window=1 << 31)
            transport: Any = connection._transport  # shape: of asyncssh, which offers no way to be silent
            transport.pause_reading()
            await settled(echo)
            before = echo.sent_bytes
            assert before < 64 << 20  # what sockets of loopback and a few pieces hold
            transport.resume_reading()
            await until(lambda: echo.sent_bytes > before + (8 << 20), "it to go on")

    play(harness, scenario, flood=True)


def test_a_channel_that_its_client_does_not_read_is_not_written_to_without_bounds(
    harness: GatewayHarness,
) -> None:
    class Deaf(asyncssh.SSHTCPSession[bytes]):
        def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
            chan.pause_reading()

        def session_started(self) -> None:
            pass

    async def scenario(echo: EchoServer) -> None:
        async with connected(harness, HELEN) as connection:
            await connection.create_connection(Deaf, "lab", 22, encoding=None, window=65536)
            await settled(echo)
            assert echo.sent_bytes < 64 << 20
            assert await echoed_first(connection, "lab") == bytes(5)  # others go on

    play(harness, scenario, flood=True)


def test_a_client_that_closes_takes_its_connection_away_from_a_vps_that_would_go_on(
    harness: GatewayHarness,
) -> None:
    async def scenario(_: EchoServer) -> None:
        async with connected(harness, HELEN) as connection:
            _reader, writer = await connection.open_connection("lab", 22, encoding=None)
            writer.close()
            await until(lambda: bool(harness.lines("ssh_closed")), "the connection to be closed")
            await connection.open_connection("lab", 22, encoding=None)
        await until(lambda: len(harness.lines("ssh_closed")) == 2, "the other one to be closed")

    play(harness, scenario, mute=True)


def test_ciphers_are_the_fast_ones_and_nothing_is_compressed(harness: GatewayHarness) -> None:
    async def scenario(_: EchoServer) -> None:
        async with connected(harness, HELEN) as connection:
            assert "gcm" in connection.get_extra_info("send_cipher")
            assert connection.get_extra_info("recv_compression") == "none"
        offers: list[dict[str, Any]] = [
            {"compression_algs": ["zlib@openssh.com", "zlib"]},
            {"encryption_algs": ["chacha20-poly1305@openssh.com", "aes128-cbc", "3des-cbc"]},
        ]
        for offered in offers:
            with pytest.raises(asyncssh.DisconnectError):  # or a lost connection, whichever it sees
                async with connected(harness, HELEN, **offered):
                    pass

    play(harness, scenario)


def test_names_that_clients_send_do_not_steer_the_log_and_no_secret_is_in_it(
    harness: GatewayHarness, keys: dict[str, Path]
) -> None:
    async def scenario(_: EchoServer) -> None:
        hostile = ("ädmin", "x" * 900, HELEN, '{"event":"ssh_login","actor":"root"}')
        for name in hostile:
            async with connected(harness, HELEN, username=name) as connection:
                await refusal(connection, "a\n\x1b[2Jb" + "c" * 300)
        async with connected(harness, key=keys["helen"]) as connection:
            assert await echoed(connection, "lab") == b"hello"
        with pytest.raises(asyncssh.PermissionDenied):
            async with connected(harness, "kr_wrong-token-of-some-length-0123456789"):
                pass

    play(harness, scenario)
    lines = [json.dumps(redacted(dict(line)), default=str) for line in harness.log]
    assert len(lines) > 10
    secrets = (HELEN, "kr_wrong", public_key_of(keys["helen"]).split()[1], "PRIVATE KEY")
    for line in lines:
        assert line.isascii()
        assert not any(secret in line for secret in secrets), line
        assert len(line) < 600
    names = [line["detail"].removeprefix("as ") for line in harness.lines("ssh.login done")]
    assert names[0] == "\\xe4dmin"
    assert len(names[1]) == 64
    assert all("\x1b" not in str(line["object"]) for line in harness.lines("ssh.open refused"))


def test_with_authentication_off_everybody_enters_as_over_the_api(tmp_path: Path) -> None:
    harness = GatewayHarness(everybody=Actor("anonymous", Role.ADMIN))
    harness.add(vps(HELENS, "helen", "lab"))
    with gateway(harness):

        async def scenario(_: EchoServer) -> None:
            async with connected(harness) as connection:
                assert await echoed(connection, "lab") == b"hello"

        play(harness, scenario)
    assert harness.lines("ssh.login done")[0]["actor"] == "anonymous"


def test_stock_ssh_gets_no_shell_command_or_forwarding_at_the_gateway(
    harness: GatewayHarness, keys: dict[str, Path], tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"gateway {harness.public_key}\n")
    base = ["ssh", "-F", "none", "-i", str(keys["helen"]), "-p", str(harness.port)]
    for option in (
        "BatchMode=yes",
        "HostKeyAlias=gateway",
        f"UserKnownHostsFile={known}",
        "StrictHostKeyChecking=yes",
        "ExitOnForwardFailure=yes",
    ):
        base += ["-o", option]
    attempts = [
        ["root@127.0.0.1", "id"],
        ["-tt", "root@127.0.0.1"],
        ["-A", "-X", "root@127.0.0.1", "id"],
        ["-s", "root@127.0.0.1", "sftp"],
        ["-N", "-R", "0:127.0.0.1:22", "root@127.0.0.1"],
        ["-W", "127.0.0.1:22", "root@127.0.0.1"],
        ["-W", "attic:22", "root@127.0.0.1"],
    ]
    for attempt in attempts:
        done = subprocess.run(
            [*base, *attempt], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
        )
        assert done.returncode == 255, (attempt, done)
        assert done.stdout == b"", (attempt, done)
    assert not harness.lines("ssh.open done")
    assert len(harness.lines("ssh.open refused")) == len(attempts)
