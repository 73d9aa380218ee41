"""Nobody takes the SSH gateway from the others: floods, guesses, silence and clients that do not read."""

import asyncio
import contextlib
import select
import socket
import time
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from kohakuriver.host.gateway import gateway as gateway_module
from kohakuriver.host.gateway import tcp_connection
from kohakuriver.host.gateway.login_limiter import MOST_PER_ADDRESS, MOST_WAITING_PER_ADDRESS
from kohakuriver.host.gateway.ssh_connection import MOST_CHANNELS, MOST_LOGIN_ATTEMPTS, MOST_REFUSALS
from support.host.gateway import HELEN, IVAN, GatewayHarness, gateway, greeting
from support.host.gateway_clients import SOON_SECONDS, EchoServer, connected, echoed, play, refusal, until
from support.machine.processes import wait_until

pytest_plugins = ["support.host.gateway_fixtures"]


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
