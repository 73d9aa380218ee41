"""Orders and reports that are made so large, or so odd, that they hold up all others of their node."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from kohakuriver.host.dispatch.dispatcher import Dispatcher
from kohakuriver.host.dispatch.runner_link import Bounds, RunnerLink
from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import HostRefused, Unauthenticated, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.agent.outbox import Outbox
from kohakuriver.wire.messages import BATCH_BYTES, TaskReport, encode
from kohakuriver.wire.trust.identity import LinkKeys
from support.host.control import Room, control_room

LARGE = "x" * 900_000


class Taker(RunnerLink):
    """A runner as the dispatcher meets it, with a limit. `signed`: its refusals can be believed."""

    def __init__(self, limit: int = 4 << 20, *, signed: bool = True) -> None:
        super().__init__(1.0)
        self.limit = limit
        self.signed = signed
        self.sizes: list[int] = []
        self.taken: list[dict[str, Any]] = []
        self.held_back = asyncio.Event()

    async def request(
        self,
        node: str,
        keys: LinkKeys,
        method: str,
        url: str,
        body: bytes = b"",
        bounds: Bounds | None = None,
    ) -> tuple[int, bytes, Mapping[str, str]]:
        await self.held_back.wait()
        self.sizes.append(len(body))
        if len(body) > self.limit:
            if not self.signed:
                raise Unauthenticated("the answer is not from the peer that this machine enrolled with")
            return 413, b'{"detail": "too large"}', {}
        orders = json.loads(body)
        self.taken += orders
        answers = [{"order_id": order["order_id"], "accepted": True} for order in orders]
        return 200, json.dumps(answers).encode(), {}

    def kinds(self) -> list[str]:
        return [order["kind"] for order in self.taken]


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


@contextlib.asynccontextmanager
async def room_with(folder: Path, taker: Taker) -> AsyncIterator[Room]:
    async with control_room(folder) as room:
        await room.join("n1", cores=50)
        dispatcher = Dispatcher(room.control.runners, taker)
        room.control.runners.wake_dispatch = dispatcher.wake
        running = asyncio.create_task(dispatcher.run())
        try:
            yield room
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def submit(room: Room, size: int) -> TaskId:
    return await room.submit("n1", env_vars=(("A", "x" * size),))


@pytest.mark.parametrize("signed", [True, False], ids=["signed refusals", "unsigned refusals"])
def test_large_environments_block_neither_each_other_nor_kills(signed: bool, tmp_path: Path) -> None:
    async def scenario() -> None:
        taker = Taker(signed=signed)
        async with room_with(tmp_path, taker) as room:
            taker.held_back.set()
            first = await room.submit("n1")
            await until(lambda: len(taker.taken) == 1)
            await room.report(first, TaskState.RUNNING, 1)
            taker.held_back.clear()
            for _ in range(6):
                await submit(room, len(LARGE))
            await room.control.tasks.kill(first)
            taker.held_back.set()
            await until(lambda: len(taker.taken) == 8)
            # At most the one request that was under way came before it.
            assert "kill" in taker.kinds()[:3]
            assert max(taker.sizes) <= BATCH_BYTES + 1000
            assert not room.control.runners.orders_for("n1", 10)

    asyncio.run(scenario())


def test_an_order_that_a_runner_does_not_take_fails_its_task_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        taker = Taker(limit=100_000)
        async with room_with(tmp_path, taker) as room:
            small = [await submit(room, 1000) for _ in range(10)]
            large = await submit(room, 200_000)
            small += [await submit(room, 1000) for _ in range(10)]
            taker.held_back.set()
            await until(lambda: len(taker.taken) == 20)
            await until(lambda: not room.control.runners.orders_for("n1", 10))
            ended = await room.control.tasks.find(large)
            assert ended.state is TaskState.FAILED
            assert "does not take the order" in (ended.error_message or "")
            assert {await room.state(task) for task in small} == {TaskState.ASSIGNING}

    asyncio.run(scenario())


def test_an_order_that_no_runner_takes_is_not_even_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        taker = Taker()
        async with room_with(tmp_path, taker) as room:
            taker.held_back.set()
            large = await submit(room, 5 << 20)
            small = await submit(room, 10)
            await until(lambda: [order["task_id"] for order in taker.taken] == [str(small)])
            await until(lambda: not room.control.runners.orders_for("n1", 10))
            ended = await room.control.tasks.find(large)
            assert "larger than the 4 MiB" in (ended.error_message or "")

    asyncio.run(scenario())


def test_a_kill_that_overtakes_older_orders_does_not_count_for_them(tmp_path: Path) -> None:
    """What a heartbeat knows of is judged by the highest number that was taken in before it."""

    async def scenario() -> None:
        taker = Taker()
        async with room_with(tmp_path, taker) as room:
            taker.held_back.set()
            first = await room.submit("n1")
            await until(lambda: len(taker.taken) == 1)
            await room.report(first, TaskState.RUNNING, 1)
            taker.held_back.clear()
            waiting = await submit(room, 10)
            await room.control.tasks.kill(first)
            seen = [order["order_id"] for order in taker.taken]
            taker.held_back.set()
            await until(lambda: "kill" in taker.kinds() and len(taker.taken) == 3)
            kill = next(order for order in taker.taken if order["kind"] == "kill")
            assert kill["order_id"] == 0
            assert kill["task_id"] == str(first)
            # A heartbeat that was made after the kill, and before the order that the kill overtook.
            await until(lambda: not room.control.runners.orders_for("n1", 10))
            await room.beat("n1", orders_seen=max(*seen, kill["order_id"]))
            assert await room.state(waiting) is TaskState.ASSIGNING

    asyncio.run(scenario())


def test_a_task_that_is_killed_before_its_order_goes_out_never_starts(tmp_path: Path) -> None:
    async def scenario() -> None:
        taker = Taker()
        async with room_with(tmp_path, taker) as room:
            task = await submit(room, 10)
            await until(lambda: bool(room.control.runners.orders_for("n1", 10)))
            await room.control.tasks.kill(task)
            taker.held_back.set()
            await until(lambda: "kill" in taker.kinds())
            await room.report(task, TaskState.KILLED, 1 << 30, completed_at=datetime.now(UTC))
            assert await room.state(task) is TaskState.KILLED
            await until(lambda: not room.control.runners.orders_for("n1", 10))

    asyncio.run(scenario())


def report_of(number: int, message: str = "") -> TaskReport:
    return TaskReport(
        task_id=str(number), status=TaskState.FAILED, attempt=1, revision=1, message=message or None
    )


def test_a_report_that_the_host_refuses_does_not_hold_up_the_others() -> None:
    committed: list[str] = []
    sizes: list[int] = []

    async def send(reports: list[TaskReport]) -> int:
        sizes.append(len(encode(reports)))
        if any(report.task_id == "77" for report in reports):
            raise HostRefused(422, "it does not fit")
        return len(reports)

    async def keep(reports: list[TaskReport]) -> None:
        committed.extend(str(report.task_id) for report in reports)

    async def scenario() -> None:
        outbox = Outbox(send, keep)
        for number in range(1, 1001):
            outbox.put(report_of(number, "m" * 10_000))
        running = asyncio.create_task(outbox.run())
        await until(lambda: len(committed) == 999)
        running.cancel()
        assert "77" not in committed
        assert max(sizes) <= BATCH_BYTES + 10

    asyncio.run(scenario())


def test_a_report_that_was_refused_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kohakuriver.runner.agent.outbox.REFUSED_PAUSE_SECONDS", 0.05)
    committed: list[TaskReport] = []
    tries: list[int] = []

    async def send(reports: list[TaskReport]) -> int:
        tries.append(len(reports))
        if len(tries) < 3:
            raise HostRefused(413, "too large")
        return len(reports)

    async def keep(reports: list[TaskReport]) -> None:
        committed.extend(reports)

    async def scenario() -> None:
        outbox = Outbox(send, keep)
        outbox.put(report_of(1))
        running = asyncio.create_task(outbox.run())
        await until(lambda: bool(committed))
        running.cancel()

    asyncio.run(scenario())
    assert tries == [1, 1, 1]


def test_refusals_of_another_kind_are_waited_for() -> None:
    """A host that does not know the node any more takes nothing, and nothing may be put aside for that."""
    tries: list[int] = []

    async def send(reports: list[TaskReport]) -> int:
        tries.append(len(reports))
        if len(tries) == 1:
            raise HostRefused(404, "there is no node")
        if len(tries) == 2:
            raise Unavailable("away")
        return len(reports)

    committed: list[TaskReport] = []

    async def keep(reports: list[TaskReport]) -> None:
        committed.extend(reports)

    async def scenario() -> None:
        outbox = Outbox(send, keep)
        for number in range(1, 4):
            outbox.put(report_of(number))
        running = asyncio.create_task(outbox.run())
        await until(lambda: len(committed) == 3)
        running.cancel()

    asyncio.run(scenario())
    assert tries == [3, 3, 3]
