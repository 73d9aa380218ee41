"""A node that takes no new work says so, with the reason, wherever somebody looks."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kohakuriver.cli.node import node_facts, node_table
from kohakuriver.client.records import NodeRecord
from kohakuriver.models.enums import NodeStatus
from kohakuriver.wire.messages import Heartbeat
from support.host_api import ApiHouse, play

UNREACHABLE = "the host cannot reach its runner at 10.0.0.9:8001"
UNFIT = "tasks cannot run here: the engine's journal cannot be read"
ELSEWHERE = "set both alike"

Closing = Callable[[ApiHouse], Awaitable[None]]


async def not_called(house: ApiHouse) -> None:
    house.room.control.door.on_registered = lambda _name: None
    await house.room.register("n1", boot_id="boot-1")
    await house.room.beat("n1")


async def not_reached(house: ApiHouse) -> None:
    await house.room.control.door.not_reached("n1", UNREACHABLE)


async def unfit(house: ApiHouse) -> None:
    house.room.beats += 1
    beat = Heartbeat(revision=house.room.beats, boot_id="boot-1", faults=[UNFIT])
    await house.room.control.heartbeat("n1", beat)


async def drained(house: ApiHouse) -> None:
    await house.room.control.node_commands.drain("n1", False, "ada")


CASES = [
    pytest.param(not_called, "has not answered the call of this host yet", "not_called", id="not called"),
    pytest.param(not_reached, UNREACHABLE, "unreachable", id="unreachable"),
    pytest.param(unfit, UNFIT, "fault", id="unfit"),
    pytest.param(drained, "is being drained", "draining", id="drained"),
]


@pytest.mark.parametrize(("close", "reason", "kind"), CASES)
def test_a_closed_node_says_so_wherever_one_looks(
    tmp_path: Path, close: Closing, reason: str, kind: str
) -> None:
    async def scenario(house: ApiHouse) -> None:
        await house.room.join("n1")
        feed = house.app.state.parts.events
        running = asyncio.create_task(feed.run())
        heard = feed.follow(None, None, lambda: True)
        await anext(heard)
        await close(house)
        assert reason in (await house.call("vera", "GET", "/api/nodes")).json()[0]["closed_reason"]
        task_id = await house.submit()
        shown = (await house.call("vera", "GET", f"/api/status/{task_id}")).json()
        assert shown["status"] == "pending"
        assert reason in shown["pending_reasons"][0]["reason"]
        ready = await house.call(None, "GET", "/readyz")
        assert ready.status_code == 200
        (notice,) = ready.json()["notices"]
        assert f"1 of 1 nodes take no new work (1 {kind.replace('_', ' ')})" in notice["message"]
        assert "n1" not in notice["message"], "anybody may ask"
        metrics = (await house.call("vera", "GET", "/metrics")).text
        assert f'kohakuriver_nodes_closed{{reason="{kind}"}} 1.0' in metrics
        async with asyncio.timeout(20):
            while b"event: node" not in (text := await anext(heard)) or reason.encode() not in text:
                continue
        await heard.aclose()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    play(tmp_path, scenario)


def test_an_open_node_is_told_of_nowhere(tmp_path: Path) -> None:
    async def scenario(house: ApiHouse) -> None:
        await house.room.join("n1")
        assert (await house.call("vera", "GET", "/api/nodes")).json()[0]["closed_reason"] == ""
        assert (await house.call(None, "GET", "/readyz")).json() == {"status": "ready", "faults": []}
        metrics = (await house.call("vera", "GET", "/metrics")).text
        assert 'kohakuriver_nodes_closed{reason="unreachable"} 0.0' in metrics

    play(tmp_path, scenario)


def test_the_command_line_shows_the_reason() -> None:

    now = datetime.now(UTC)
    record = NodeRecord(hostname="n1", status=NodeStatus.ONLINE, closed_reason="has not answered the call")
    assert node_table([record], now).rows[0][-1] == "has not answered the call"
    assert ("New work", "none: it has not answered the call") in node_facts(record, now).lines
