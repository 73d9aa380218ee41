"""Messages that cross each other, clocks and commits that fail at a bad moment: histories that a model of the
whole cluster found (`tests/model/test_cluster_model.py`), each by itself."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.control.clock import Clock
from kohakuriver.host.control.cluster_control import ControlSettings, open_control
from kohakuriver.host.control.turn import Turn
from kohakuriver.host.store import queries
from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.events import EventKind
from kohakuriver.models.ids import TaskId
from kohakuriver.models.records import changed
from kohakuriver.wire.messages import AttemptState, OrderAnswer
from kohakuriver.wire.trust.identity import Identity
from support.host.control import CLUSTER_ID, Room, control_room
from support.host.failing_store import FailingStore
from support.runner.agent_world import RecordingHost, execute, order, process
from support.runner.machine_engine import Machine, MachineEngine

CHECK_SECONDS = 0.1
KEY = (7, 1)


def play(folder: Path, scenario: Callable[[Room], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), control_room(folder, CHECK_SECONDS) as room:
            await scenario(room)

    asyncio.run(run())


async def until(room: Room, task_id: TaskId, state: TaskState) -> None:
    async with asyncio.timeout(20):
        while await room.state(task_id) is not state:
            await asyncio.sleep(0.02)


def test_a_refusal_strikes_off_the_kill_that_followed_the_order(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join()
        task_id = await room.submit()
        (sent,) = room.control.runners.orders_for("n1", 10)
        await room.control.tasks.kill(task_id)
        refused = OrderAnswer(order_id=sent.order_id, accepted=False, detail="no such GPU")
        await room.control.runners.orders_answered("n1", [refused])
        assert await room.state(task_id) is TaskState.FAILED
        assert await room.store.read(queries.all_orders) == []

    play(tmp_path, scenario)


def test_a_node_that_falls_silent_right_after_it_registered_loses_its_tasks(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join()
        task_id = await room.begin()
        await room.register(boot_id="boot-2")
        await until(room, task_id, TaskState.LOST)

    play(tmp_path, scenario)


def test_silence_is_noticed_though_its_first_commit_failed(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join()
        task_id = await room.begin()
        room.store.fail_writes(Unavailable("the host's database cannot be written"))
        await room.store.write_failed.wait()
        room.store.mend()
        await until(room, task_id, TaskState.LOST)

    play(tmp_path, scenario)


def test_a_heartbeat_made_before_an_end_does_not_close_its_node(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join()
        task_id = await room.begin()
        await room.report(task_id, TaskState.COMPLETED, 2, exit_code=0)
        listed = AttemptState(task_id=str(task_id), attempt=1, status=TaskState.RUNNING, revision=1)
        assert await room.beat(attempts=[listed], orders_seen=1 << 62) == []
        assert await room.state(await room.submit()) is TaskState.ASSIGNING
        again = AttemptState(task_id=str(task_id), attempt=1, status=TaskState.RUNNING, revision=3)
        assert [end.task_id for end in await room.beat(attempts=[again])] == [str(task_id)]

    play(tmp_path, scenario)


def test_a_defect_in_one_command_ends_neither_the_loop_nor_what_was_changed_before(tmp_path: Path) -> None:
    def defective(turn: Turn) -> None:
        task = next(iter(turn.state.tasks.values()))
        turn.replace_task(changed(task, error_message="never committed"), EventKind.REPORTED_AGAIN)
        raise KeyError("a defect")

    async def scenario(room: Room) -> None:
        await room.join()
        task_id = await room.begin()
        with pytest.raises(Unavailable, match="internal error"):
            await room.control.loop.call(defective)
        assert (await room.control.tasks.find(task_id)).error_message != "never committed"
        live = room.control.tasks.live(task_id)
        assert live is not None
        assert live.error_message != "never committed"

    play(tmp_path, scenario)


def test_numbers_of_orders_never_come_again_though_the_clock_was_set_back(tmp_path: Path) -> None:
    class HourBehind(Clock):
        def now(self) -> datetime:
            return super().now() - timedelta(hours=1)

    async def number_of_a_pause(room: Room, task_id: TaskId) -> int:
        await room.control.tasks.pause(task_id)
        (sent,) = room.control.runners.orders_for("n1", 10)
        await room.control.runners.orders_answered("n1", [OrderAnswer(order_id=sent.order_id, accepted=True)])
        return sent.order_id

    async def run() -> None:
        async with control_room(tmp_path) as room:
            await room.join()
            task_id = await room.begin()
            before = await number_of_a_pause(room, task_id)
        store = FailingStore(open_store(tmp_path / "host.db"))
        settings = ControlSettings("/shared", "base", 2, 1, 10)
        control = await open_control(store, CLUSTER_ID, Identity.generate(), settings, HourBehind())
        serving = asyncio.create_task(control.run())
        try:
            assert await number_of_a_pause(Room(control, store), task_id) > before
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            store.close()

    asyncio.run(run())


def test_nothing_is_reported_after_an_end_that_came_while_a_pause_was_written_down(tmp_path: Path) -> None:
    class EndsInBetween(MachineEngine):
        """The command ends right after it was paused."""

        async def pause(self, task_id: TaskId, attempt: int) -> None:
            await self.machine.finish((task_id, attempt), 0)

    async def run() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            world.engine.__class__ = EndsInBetween
            await world.obey(execute())
            await host.until(lambda: host.states(KEY) == [TaskState.RUNNING])
            await world.obey(order(OrderKind.PAUSE, order_id=80))
            await world.until(lambda: world.agent.attempts()[0] == [])
        assert host.states(KEY) == [TaskState.RUNNING, TaskState.COMPLETED]

    asyncio.run(run())


def test_the_image_that_ran_is_on_record_whichever_report_tells_it(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join()
        task_id = await room.begin()
        for revision, told, kept in ((2, "sha256:1", "sha256:1"), (3, None, "sha256:1")):
            await room.report(task_id, TaskState.RUNNING, revision, image_digest=told)
            assert (await room.control.tasks.find(task_id)).attempt.image_digest == kept
        await room.report(task_id, TaskState.COMPLETED, 4, exit_code=0)
        assert (await room.control.tasks.find(task_id)).attempt.image_digest == "sha256:1"

    play(tmp_path, scenario)
