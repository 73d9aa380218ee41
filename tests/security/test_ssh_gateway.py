"""Attacks on the SSH gateway: who is let in, what is opened for them, what they can make it do or write."""

import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from kohakuriver.host.auth import Actor
from kohakuriver.logging_setup import redacted
from kohakuriver.models.enums import Role, SshKeyMode, TaskState
from support.clients.vps_sshd import public_key_of
from support.host.gateway import HELEN, HELENS, IVAN, IVANS, ODA, GatewayHarness, gateway, vps
from support.host.gateway_clients import EchoServer, connected, echoed, play, refusal

pytest_plugins = ["support.host.gateway_fixtures"]


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


def test_a_key_opens_a_vps_that_is_made_with_it_while_it_is_connected(
    harness: GatewayHarness, keys: dict[str, Path]
) -> None:
    async def scenario(_: EchoServer) -> None:
        async with connected(harness, key=keys["helen"], username="root") as connection:
            assert "no VPS" in await refusal(connection, "attic")
            key = public_key_of(keys["helen"])
            harness.add(vps(IVANS, "helen", "attic", (key,)), harness.dials[HELENS])
            assert await echoed(connection, "attic") == b"hello"

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
