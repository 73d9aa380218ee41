"""The host calls nodes that it has no orders for: at their registration, and from time to time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from kohakuriver.host.dispatch import call_times
from kohakuriver.host.dispatch.dispatcher import Dispatcher
from kohakuriver.host.dispatch.runner_link import Bounds, RunnerLink, Unreachable
from kohakuriver.wire.trust.identity import LinkKeys
from support.host.control import Room, control_room

pytestmark = pytest.mark.anyio
DEADLINE_SECONDS = 30


class Link(RunnerLink):
    """The way to the runners. `closed`: nobody is reached on it."""

    def __init__(self, *, closed: bool = False) -> None:
        super().__init__(DEADLINE_SECONDS)
        self.calls: list[tuple[str, bytes]] = []
        self.closed = closed

    async def request(
        self,
        node: str,
        keys: LinkKeys,
        method: str,
        url: str,
        body: bytes = b"",
        bounds: Bounds | None = None,
    ) -> tuple[int, bytes, Mapping[str, str]]:
        self.calls.append((url, body))
        if self.closed:
            raise Unreachable(node, ConnectionRefusedError(111, "Connection refused"))
        return 200, b"[]", {}


@contextlib.asynccontextmanager
async def dispatching(folder: Path, link: Link) -> AsyncIterator[Room]:
    async with control_room(folder) as room:
        dispatcher = Dispatcher(room.control.runners, link)
        room.control.runners.wake_dispatch = dispatcher.wake
        room.control.runners.on_registered = dispatcher.call
        running = asyncio.create_task(dispatcher.run())
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                yield room
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def until_closed_by(room: Room, told: str) -> None:
    while told not in room.control.nodes.openness()["n1"][1]:
        await asyncio.sleep(0.01)


async def until_open(room: Room) -> None:
    while room.control.nodes.openness()["n1"][1]:
        await asyncio.sleep(0.01)


async def test_a_node_is_called_when_it_registers_though_there_are_no_orders(tmp_path: Path) -> None:
    link = Link()
    async with dispatching(tmp_path, link) as room:
        # Without a heartbeat: it is not called because it is online.
        await room.join("n1")
        await until_open(room)
        assert link.calls == [("http://127.0.0.1:8001/api/orders", b"[]")]
        await room.register("n1", boot_id="boot-2")
        while len(link.calls) < 2:
            await asyncio.sleep(0.01)


async def test_a_node_that_is_not_reached_says_so_until_it_answers(tmp_path: Path) -> None:
    link = Link(closed=True)
    async with dispatching(tmp_path, link) as room:
        await room.join("n1")
        await until_closed_by(
            room, "the host cannot reach its runner at 127.0.0.1:8001 (Connection refused); open that port"
        )
        link.closed = False
        while room.control.nodes.openness()["n1"][1]:
            await room.beat("n1")
            await asyncio.sleep(0.05)


async def test_a_port_that_closes_while_nothing_is_to_be_done_is_found_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Link()
    async with dispatching(tmp_path, link) as room:
        await room.join("n1")
        await until_open(room)
        link.closed = True
        await room.beat("n1")
        assert room.control.nodes.openness()["n1"][1] == "", "it was called a moment ago"
        monkeypatch.setattr(call_times, "CALL_AGAIN_SECONDS", 0.0)
        await room.beat("n1")
        await until_closed_by(room, "the host cannot reach its runner")
