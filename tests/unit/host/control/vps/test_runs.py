"""VPSs at the host: a run is an attempt, a stop can be followed by a start, and its node is kept."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kohakuriver.models.enums import OrderKind, SshKeyMode, TaskState, TaskType
from kohakuriver.models.errors import Conflict, KohakuRiverError, NoCapacity, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.models.records import changed
from kohakuriver.models.spec.targets import Target
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.vps import VpsSpec
from support.host.control import Room, control_room

S = TaskState
pytestmark = pytest.mark.anyio
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMbhlrtnfwdJuCYfl1gX3ZyPlAzqNo1QTDsdTcaibhIj"
SPEC = TaskSpec(
    "",
    task_type=TaskType.VPS,
    name="lab",
    vps=VpsSpec(SshKeyMode.UPLOAD, (f"{KEY} ann@lab",), "the host key", "ssh-ed25519 AAAA lab"),
)


async def create(room: Room, **changes: object) -> TaskId:
    spec = changed(SPEC, **changes)  # type: ignore[arg-type]
    return (await room.control.vps.create("ann", spec)).id


async def running(room: Room, **changes: object) -> TaskId:
    """Create a VPS and have its node report that it runs."""
    task = await create(room, **changes)
    await room.accept_orders(await node_of(room, task))
    await room.report(task, S.RUNNING, 1, node=await node_of(room, task), address="172.30.0.9")
    return task


async def record(room: Room, task: TaskId) -> Task:
    return await room.control.tasks.find(task)


async def node_of(room: Room, task: TaskId) -> str:
    return (await record(room, task)).assigned_node or ""


def orders(room: Room, node: str = "n1") -> list[tuple[OrderKind, int]]:
    return [(order.kind, order.attempt) for order in room.control.runners.orders_for(node, 100)]


async def test_the_order_carries_what_makes_it_a_vps(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        await room.join()
        await create(room)
        (order,) = room.control.runners.orders_for("n1", 10)
        assert order.session is not None
        assert (order.session.hostname, order.session.host_key) == ("lab", "the host key")
        assert order.session.authorized_keys == [f"{KEY} ann@lab"]
        assert "the host key" not in repr(SPEC)


async def test_a_stopped_vps_starts_again_as_the_next_attempt_where_it_was(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        await room.join("n1")
        await room.join("n2")
        task = await running(room)
        home = await node_of(room, task)
        await room.control.vps.stop(task)
        assert orders(room, home) == [(OrderKind.STOP, 1)]
        await room.accept_orders(home)
        await room.report(task, S.STOPPED, 2, node=home)
        stopped = await record(room, task)
        assert (stopped.state, stopped.attempt.address) == (S.STOPPED, "172.30.0.9")
        await room.control.vps.restart(task)
        again = await record(room, task)
        assert (again.state, again.attempt.number, again.assigned_node) == (S.ASSIGNING, 2, home)
        (order,) = room.control.runners.orders_for(home, 10)
        assert (order.kind, order.attempt) == (OrderKind.EXECUTE, 2)
        assert order.session is not None
        assert order.session.address == "172.30.0.9"


async def test_a_restart_of_what_runs_follows_its_stop_in_the_same_turn(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        await room.join()
        task = await running(room)
        await room.control.vps.restart(task, restore="1700000000")
        (stop,) = room.control.runners.orders_for("n1", 10)
        assert (stop.kind, stop.protected_snapshot) == (OrderKind.STOP, 1_700_000_000)
        await room.accept_orders()
        await room.report(task, S.STOPPED, 2)
        (order,) = room.control.runners.orders_for("n1", 10)
        assert (order.kind, order.attempt) == (OrderKind.EXECUTE, 2)
        assert order.session is not None
        assert order.session.restore == "1700000000"
        kinds = [event.kind for event in await room.control.tasks.history(task)]
        assert kinds[-2:] == ["stopped", "assigning"]


async def test_what_was_not_stopped_goes_on_with_a_notice_and_is_not_started_again(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        await room.join()
        task = await running(room)
        await room.control.vps.restart(task)
        await room.accept_orders()
        sentence = "it was not stopped: the disk is full"
        await room.report(task, S.RUNNING, 2, notice=sentence, stop_given_up=True)
        told = (await record(room, task)).vps_state
        assert told is not None
        assert (told.notice, told.restart_requested) == ("it was not stopped: the disk is full", False)
        await room.report(task, S.STOPPED, 3)
        assert await room.state(task) is S.STOPPED


async def test_a_notice_is_gone_when_a_stop_or_restart_is_asked_for_anew(tmp_path: Path) -> None:
    """Who waits for what they asked for takes a notice for the answer to it."""
    async with control_room(tmp_path) as room:
        await room.join()
        task = await running(room)
        calls: list[Callable[[TaskId], Awaitable[None]]] = [
            room.control.vps.stop,
            room.control.vps.restart,
        ]
        for revision, call in enumerate(calls, 2):
            await room.report(task, S.RUNNING, revision, notice="it was not stopped: the disk is full")
            await call(task)
            told = (await record(room, task)).vps_state
            assert told is not None
            assert told.notice is None


async def test_a_restart_under_way_outlasts_a_fall_of_the_engine_before_the_stop(tmp_path: Path) -> None:
    """The runner starts what fell again, and then stops it as it was told: the start is still to follow."""
    async with control_room(tmp_path) as room:
        await room.join()
        task = await running(room)
        await room.control.vps.restart(task)
        await room.accept_orders()
        await room.report(task, S.RUNNING, 2, notice="it was started again: its engine was restarted")
        await room.report(task, S.STOPPED, 3)
        assert await room.state(task) is S.ASSIGNING


async def test_one_that_was_moved_goes_back_to_where_it_was_moved(tmp_path: Path) -> None:
    async with control_room(tmp_path, check_seconds=0.02) as room:
        await room.join("n1")
        task = await running(room, target=Target("n1"))
        await room.report(task, S.STOPPED, 2)
        await room.join("n2")
        await room.control.vps.restart(task, node="n2")
        # n2 has not answered the order when it falls silent.
        for _ in range(500):
            if await room.state(task) is S.PENDING:
                break
            await room.beat("n1")
            await room.control.tasks.wait_ended(task, 0.01)
        waiting = await record(room, task)
        assert (waiting.state, waiting.demand.target) == (S.PENDING, Target("n2"))


async def test_a_failed_vps_can_be_started_again_also_after_a_restart_of_the_host(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        await room.join()
        task = await running(room)
        await room.report(task, S.FAILED, 2, message="its image has no sshd")
    async with control_room(tmp_path) as room:
        await room.register()
        await room.beat()
        assert (await record(room, task)).error_message == "its image has no sshd"
        await room.control.vps.restart(task)
        again = await record(room, task)
        assert (again.state, again.attempt.number, again.error_message) == (S.ASSIGNING, 2, None)


async def test_a_restart_waits_for_no_room_but_says_that_there_is_none(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        await room.join(cores=2)
        task = await running(room, required_cores=2)
        await room.control.vps.stop(task)
        await room.report(task, S.STOPPED, 2)
        await room.submit()
        with pytest.raises(NoCapacity, match="cores"):
            await room.control.vps.restart(task)
        assert await room.state(task) is S.STOPPED


async def test_a_restart_under_way_waits_until_its_node_takes_work_again(tmp_path: Path) -> None:
    """The VPS was up; that its node has a fault for a moment must not leave it down."""
    async with control_room(tmp_path) as room:
        await room.join()
        task = await running(room)
        await room.control.vps.restart(task)
        await room.accept_orders()
        await room.control.nodes.drain("n1", move=False, by="ada")
        await room.report(task, S.STOPPED, 2)
        waiting = await record(room, task)
        assert waiting.state is S.STOPPED
        assert waiting.vps_state is not None
        assert "drained" in (waiting.vps_state.notice or "")
        await room.control.nodes.undrain("n1")
        await room.beat()
        again = await record(room, task)
        assert (again.state, again.attempt.number) == (S.ASSIGNING, 2)
        assert again.vps_state is not None
        assert again.vps_state.notice is None


async def test_a_start_on_a_node_that_takes_no_work_waits_for_it_and_can_be_called_off(
    tmp_path: Path,
) -> None:
    async with control_room(tmp_path) as room:
        await room.join()
        task = await running(room)
        await room.report(task, S.FAILED, 2, message="its engine fell")
        await room.control.nodes.drain("n1", move=False, by="ada")
        await room.control.vps.restart(task)
        waiting = await record(room, task)
        assert waiting.state is S.FAILED
        assert waiting.vps_state is not None
        assert "n1" in (waiting.vps_state.notice or "")
        await room.control.vps.stop(task)
        await room.control.nodes.undrain("n1")
        await room.beat()
        assert await room.state(task) is S.FAILED
        await room.control.nodes.drain("n1", move=False, by="ada")
        await room.control.vps.restart(task)
        await room.control.nodes.undrain("n1")
        await room.beat()
        assert await room.state(task) is S.ASSIGNING


async def test_one_whose_order_never_arrived_goes_back_to_its_own_node(tmp_path: Path) -> None:
    """Its snapshots are there; on any other node it would begin anew."""
    async with control_room(tmp_path, check_seconds=0.02) as room:
        await room.join("n1", cores=2)
        task = await running(room)
        await room.control.vps.stop(task)
        await room.accept_orders()
        await room.report(task, S.STOPPED, 2)
        await room.control.vps.restart(task)
        # n1 has not answered the order when it falls silent; n2 has more room.
        await room.join("n2", cores=8)
        for _ in range(500):
            if await room.state(task) is S.PENDING:
                break
            await room.beat("n2")
            await room.control.tasks.wait_ended(task, 0.01)
        waiting = await record(room, task)
        assert (waiting.state, waiting.demand.target) == (S.PENDING, Target("n1"))


async def test_a_stopped_vps_can_be_moved_but_not_away_from_what_it_asks_for(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        await room.join("n1")
        await room.join("n2")
        task = await running(room, target=Target("n1"))
        with pytest.raises(Conflict, match="stop it before"):
            await room.control.vps.restart(task, node="n2")
        await room.report(task, S.STOPPED, 2)
        await room.control.vps.restart(task, "1700000000", "n2")
        assert (await record(room, task)).assigned_node == "n2"
        assert orders(room, "n2") == [(OrderKind.EXECUTE, 2)]


@pytest.mark.parametrize("state", [S.STOPPED, S.FAILED])
async def test_what_has_ended_cannot_be_killed_or_stopped(tmp_path: Path, state: TaskState) -> None:
    async with control_room(tmp_path) as room:
        await room.join()
        task = await running(room)
        await room.report(task, state, 2)
        for refused in (room.control.tasks.kill, room.control.vps.stop):
            with pytest.raises(Conflict):
                await refused(task)
        assert orders(room) == []


async def test_two_vps_that_run_have_different_names(tmp_path: Path) -> None:
    """One that stands still gives its name away, and waits until it is free again."""
    async with control_room(tmp_path) as room:
        await room.join()
        first = await running(room)
        with pytest.raises(Conflict, match="lab"):
            await create(room)
        await room.report(first, S.STOPPED, 2)
        second = await create(room)
        with pytest.raises(Conflict, match="lab"):
            await room.control.vps.restart(first)
        await room.control.tasks.kill(second)
        await room.accept_orders()
        await room.report(second, S.KILLED, 1)
        await room.control.vps.restart(first)
        assert await room.state(first) is S.ASSIGNING


async def test_a_command_task_is_no_vps(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        await room.join()
        task = await room.submit()
        calls: list[Callable[[TaskId], Awaitable[None]]] = [
            room.control.vps.stop,
            room.control.vps.restart,
        ]
        for call in calls:
            with pytest.raises(NotFound):
                await call(task)


async def test_a_key_opens_its_own_vps_alone_whatever_its_comment(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        await room.join()
        task = await create(room)
        await create(room, name="other", vps=VpsSpec())
        assert room.control.vps.of_key(f"{KEY} somebody") == {task}
        assert room.control.vps.of_key(KEY[:-1] + "x") == set()


async def test_a_kill_ends_the_vps_and_what_was_to_follow(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        await room.join()
        task = await running(room)
        await room.control.vps.restart(task)
        await room.control.tasks.kill(task)
        await room.accept_orders()
        await room.report(task, S.KILLED, 2)
        assert await room.state(task) is S.KILLED
        assert orders(room) == []
        with pytest.raises(KohakuRiverError):
            await room.control.vps.restart(task)
