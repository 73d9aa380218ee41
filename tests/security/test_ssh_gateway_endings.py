"""A connection through the SSH gateway ends with the right to it, with its VPS, or with its client."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from kohakuriver.host.auth import Actor
from kohakuriver.models.enums import Role, TaskState
from support.host.gateway import HELEN, HELENS, ODA, GatewayHarness, vps
from support.host.gateway_clients import SOON_SECONDS, EchoServer, connected, play, until
from support.machine.processes import wait_until

pytest_plugins = ["support.host.gateway_fixtures"]


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
