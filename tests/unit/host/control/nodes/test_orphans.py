"""Work that a node holds under another node's name: shown, counted, and nobody's before somebody decides."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.control.nodes.node import NodeSnapshot
from kohakuriver.models.enums import NodeStatus, OrderKind, OrphanChoice, TaskState
from kohakuriver.models.errors import Conflict, InvalidInput, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.wire.messages import AttemptState, Heartbeat, HeartbeatAnswer
from kohakuriver.wire.orphan import Orphan
from support.engines.labs import FakeLab, ignore
from support.host.control import Room, control_room

S = TaskState
ADOPT, END = OrphanChoice.ADOPT, OrphanChoice.END


def play(folder: Path, scenario: Callable[[Room], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with control_room(folder, check_seconds=0.05) as room:
            await scenario(room)

    asyncio.run(run())


def left(task_id: TaskId, **changes: Any) -> Orphan:
    fields: dict[str, Any] = {
        "node": "old",
        "task_id": str(task_id),
        "attempt": 1,
        "status": S.RUNNING,
        "cores": 1,
        "memory_bytes": 1 << 20,
    }
    return Orphan(**fields | changes)


async def beat(room: Room, *orphans: Orphan, attempts: tuple[AttemptState, ...] = ()) -> HeartbeatAnswer:
    room.beats += 1
    return await room.control.runners.heartbeat(
        "new",
        Heartbeat(revision=room.beats, boot_id="boot-1", leftovers=list(orphans), attempts=list(attempts)),
    )


async def renamed(room: Room, **fields: Any) -> TaskId:
    """A task that runs on `old`, which then falls silent; the same machine has joined as `new`."""
    await room.join("old")
    task_id = await room.submit("old", **fields)
    await room.accept_orders("old")
    await room.report(task_id, S.RUNNING, 1, node="old")
    await room.join("new")
    async with asyncio.timeout(20):
        while await room.state(task_id) is not S.LOST:
            await asyncio.sleep(0.02)
            await beat(room, left(task_id))
    await beat(room, left(task_id))
    return task_id


def node(room: Room, name: str) -> NodeSnapshot | None:
    return next((each for each in room.control.nodes.snapshots() if each.row.hostname == name), None)


def shown(room: Room) -> NodeSnapshot:
    found = node(room, "new")
    assert found is not None
    return found


def test_it_is_shown_and_its_share_is_not_given_out(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await renamed(room)
        answer = await beat(room, left(task_id), left(TaskId(7), cores=1, gpus=[3]))
        assert (answer.end_attempts, answer.take_over) == ([], []), "nothing happens without a decision"
        new = shown(room)
        assert (new.usage.cores, new.usage.memory_bytes, new.usage.gpus) == (2, 2 << 20, {3})
        assert ["2 workloads run here under the name of node old" in text for text in new.notices] == [True]
        waiting = await room.submit("new")
        assert await room.state(waiting) is S.PENDING
        await beat(room, left(task_id))
        assert await room.state(waiting) is S.ASSIGNING, "what has ended takes nothing"

    play(tmp_path, scenario)


def test_what_stands_under_the_name_of_a_node_that_is_here_is_its_own_affair(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join("old")
        task_id = await room.submit("old")
        await room.accept_orders("old")
        await room.report(task_id, S.RUNNING, 1, node="old")
        await room.join("new")
        await beat(room, left(task_id))
        assert (shown(room).usage.cores, shown(room).notices) == (0, ())
        with pytest.raises(NotFound):
            await room.control.nodes.decide_orphans("new", "old", END, "ada")
        assert (await beat(room, left(task_id))).take_over == []

    play(tmp_path, scenario)


def test_what_names_no_cluster_counts_where_it_is_on_record(tmp_path: Path) -> None:
    """An earlier version made it, and perhaps for another cluster on the same engine."""

    async def scenario(room: Room) -> None:
        task_id = await renamed(room)
        await beat(room, left(task_id, names_cluster=False), left(TaskId(7), names_cluster=False))
        assert [entry.task_id for entry in shown(room).orphans] == [str(task_id)]

    play(tmp_path, scenario)


def test_adopted_work_goes_on_as_the_nodes_own(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await renamed(room)
        await beat(room, left(task_id))
        assert await room.control.nodes.decide_orphans("new", "old", ADOPT, "ada") == 1
        assert node(room, "old") is None
        task = await room.control.tasks.find(task_id)
        assert (task.assigned_node, task.attempt.number, task.state) == ("new", 1, S.LOST)
        assert shown(room).usage.cores == 1, "it is counted once"
        assert (await beat(room, left(task_id))).take_over == ["old"]
        stray = AttemptState(task_id=str(task_id), attempt=1, status=S.RUNNING, revision=0, stray=True)
        answer = await beat(room, attempts=(stray,))
        assert (answer.end_attempts, answer.take_over) == ([], [])
        assert [(o.kind, o.task_id, o.attempt) for o in room.control.runners.orders_for("new", 9)] == [
            (OrderKind.EXECUTE, str(task_id), 1)
        ]
        assert (shown(room).notices, shown(room).usage.cores) == ((), 1)

    play(tmp_path, scenario)


def test_an_adoption_is_told_again_after_the_host_was_restarted(tmp_path: Path) -> None:
    async def first(room: Room) -> None:
        task_id = await renamed(room)
        await room.control.nodes.decide_orphans("new", "old", ADOPT, "ada")
        (tmp_path / "task").write_text(str(task_id))

    async def second(room: Room) -> None:
        task_id = TaskId(int((tmp_path / "task").read_text()))
        await room.register("new")
        assert (await beat(room, left(task_id))).take_over == ["old"]

    play(tmp_path, first)
    play(tmp_path, second)


def test_ended_work_is_given_up_and_its_workloads_are_ended(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await renamed(room)
        await room.control.nodes.decide_orphans("new", "old", END, "ada")
        assert (node(room, "old"), await room.state(task_id)) == (None, S.FAILED)
        assert shown(room).usage.cores == 1, "it runs until it has ended"
        assert (await beat(room, left(task_id))).take_over == ["old"]
        stray = AttemptState(task_id=str(task_id), attempt=1, status=S.RUNNING, revision=0, stray=True)
        answer = await beat(room, attempts=(stray,))
        assert [(end.task_id, end.attempt) for end in answer.end_attempts] == [(str(task_id), 1)]

    play(tmp_path, scenario)


def test_a_node_that_came_back_keeps_its_work(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await renamed(room)
        await room.register("old")
        room.beats += 1
        held = AttemptState(task_id=str(task_id), attempt=1, status=S.RUNNING, revision=1)
        await room.beat("old", [held])
        found = node(room, "old")
        assert found is not None
        assert found.status is NodeStatus.ONLINE
        with pytest.raises(Conflict, match="is there"):
            await room.control.nodes.decide_orphans("new", "old", END, "ada")

    play(tmp_path, scenario)


def test_an_orphan_that_is_no_task_is_refused(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join("new")
        with pytest.raises(InvalidInput):
            await beat(room, Orphan(node="old", task_id="../etc", attempt=1, status=S.RUNNING))

    play(tmp_path, scenario)


def test_the_fake_engine_hands_over_what_it_holds_under_another_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        lab = FakeLab(tmp_path)
        spec = lab.spec("sleep", "60", cores=2)
        await lab.engine.create(spec, ignore)
        await lab.engine.start(spec.task_id, 1)
        lab.machine.of_others["old"] = [lab.machine.workloads.pop(spec.task_id)]
        assert [(each.node, each.cores) for each in lab.engine.orphans()] == [("old", 2)]
        assert await lab.engine.list_workloads() == []
        taken = await lab.engine.take_over(["old"])
        assert taken == await lab.engine.list_workloads()
        assert [each.task_id for each in taken] == [spec.task_id]
        assert lab.engine.orphans() == []

    asyncio.run(scenario())
