"""A node that takes no new work says so, with the reason, wherever somebody looks."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from kohakuriver.cli.nodes.commands import node_facts, node_table
from kohakuriver.client.records import NodeRecord
from kohakuriver.host.control.nodes import heartbeats
from kohakuriver.host.control.nodes.node import ClosedBy
from kohakuriver.host.control.turn import Turn
from kohakuriver.models.enums import NodeStatus, TaskState
from kohakuriver.wire.messages import AttemptState, EnrolRequest
from kohakuriver.wire.trust.identity import Identity
from support.host.api import ApiHarness, play

UNREACHABLE = "the host cannot reach its runner at 10.0.0.9:8001"
UNFIT = "tasks cannot run here: the engine's journal cannot be read"

Closing = Callable[[ApiHarness], Awaitable[None]]


async def not_registered(harness: ApiHarness) -> None:
    request = EnrolRequest(hostname="n1", public_key=Identity.generate().public_key)
    await harness.room.control.runners.enrol(request)
    await harness.room.control.nodes.approve("n1", None, "ada")


async def not_called(harness: ApiHarness) -> None:
    harness.room.control.runners.on_registered = lambda _name: None
    await harness.room.join("n1")


async def not_reached(harness: ApiHarness) -> None:
    await harness.room.join("n1")
    await harness.room.control.runners.not_reached("n1", UNREACHABLE)


async def silent(harness: ApiHarness) -> None:
    await harness.room.join("n1")
    await harness.room.control.loop.call(partial(heartbeats.node_silent, hostname="n1"))


async def unfit(harness: ApiHarness) -> None:
    await harness.room.join("n1")
    await harness.room.beat("n1", faults=[UNFIT])


async def drained(harness: ApiHarness) -> None:
    await harness.room.join("n1")
    await harness.room.control.nodes.drain("n1", False, "ada")


async def ends_strangers(harness: ApiHarness) -> None:
    await harness.room.join("n1")
    stranger = AttemptState(task_id="7", attempt=1, status=TaskState.RUNNING, revision=1)
    assert await harness.room.beat("n1", [stranger])


async def was_restored(harness: ApiHarness) -> None:
    """What a restore loses, and how it is found, is in test_restored_host.py."""

    def lose(turn: Turn) -> None:
        turn.known_node("n1").unknown_workloads = 2
        turn.state.refresh_status("n1")

    await harness.room.join("n1")
    await harness.room.control.loop.call(lose)


CASES: dict[ClosedBy, tuple[Closing, str]] = {
    ClosedBy.UNREGISTERED: (not_registered, "has not registered yet"),
    ClosedBy.OFFLINE: (silent, "is offline"),
    ClosedBy.DRAINING: (drained, "is being drained"),
    ClosedBy.NOT_CALLED: (not_called, "has not answered the call of this host yet"),
    ClosedBy.ENDING: (ends_strangers, "is ending workloads"),
    ClosedBy.RESTORED: (was_restored, "still runs 2 workloads"),
    ClosedBy.UNREACHABLE: (not_reached, UNREACHABLE),
    ClosedBy.FAULT: (unfit, UNFIT),
}


async def until_heard(heard: AsyncGenerator[bytes, None], *words: str) -> None:
    """Read the stream until it reports a node in these words."""
    async with asyncio.timeout(60):
        while True:
            text = (await anext(heard)).decode()
            if "event: node" in text and all(word in text for word in words):
                return


@pytest.mark.parametrize("kind", ClosedBy)
def test_a_closed_node_says_so_wherever_one_looks(tmp_path: Path, kind: ClosedBy) -> None:
    close, reason = CASES[kind]

    async def scenario(harness: ApiHarness) -> None:
        feed = harness.app.state.parts.events
        running = asyncio.create_task(feed.run())
        heard = feed.follow(None, None, contextlib.nullcontext)
        await anext(heard)
        await close(harness)
        await until_heard(heard, reason)
        assert reason in (await harness.call("vera", "GET", "/api/nodes")).json()[0]["closed_reason"]
        task_id = await harness.submit()
        shown = (await harness.call("vera", "GET", f"/api/status/{task_id}")).json()
        assert shown["status"] == "pending"
        assert reason in shown["pending_reasons"][0]["reason"]
        ready = await harness.call(None, "GET", "/readyz")
        assert ready.status_code == 200
        (notice,) = ready.json()["notices"]
        assert f"1 of 1 nodes take no new work (1 {kind.value.replace('_', ' ')})" in notice["message"]
        assert "n1" not in notice["message"], "anybody may ask"
        metrics = (await harness.call("vera", "GET", "/metrics")).text
        assert f'kohakuriver_nodes_closed{{reason="{kind.value}"}} 1.0' in metrics
        await heard.aclose()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    play(tmp_path, scenario)


def test_a_node_that_closes_and_opens_is_reported_though_nothing_is_written_down(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        feed = harness.app.state.parts.events
        heard = feed.follow(None, None, contextlib.nullcontext)
        await anext(heard)
        await harness.room.join("n1")
        await until_heard(heard, '"status":"online"', '"closed_reason":""')
        await harness.room.beat("n1", faults=[UNFIT])
        await until_heard(heard, UNFIT)
        await harness.room.beat("n1")
        await until_heard(heard, '"closed_reason":""')
        await heard.aclose()

    play(tmp_path, scenario)


def test_an_open_node_is_reported_nowhere(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        assert (await harness.call("vera", "GET", "/api/nodes")).json()[0]["closed_reason"] == ""
        assert (await harness.call(None, "GET", "/readyz")).json() == {"status": "ready", "faults": []}
        metrics = (await harness.call("vera", "GET", "/metrics")).text
        assert 'kohakuriver_nodes_closed{reason="unreachable"} 0.0' in metrics

    play(tmp_path, scenario)


def test_the_command_line_shows_the_reason() -> None:

    now = datetime.now(UTC)
    record = NodeRecord(hostname="n1", status=NodeStatus.ONLINE, closed_reason="has not answered the call")
    assert node_table([record], now).rows[0][-1] == "has not answered the call"
    assert ("New work", "none: it has not answered the call") in node_facts(record, now).lines
