"""Rules of the one writer: answers after commits, fences, queue order, enrolment, recovery from the store."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.store.store import DiskFault
from kohakuriver.models.enums import NodeStatus, OrderKind, TaskState
from kohakuriver.models.errors import Conflict, Denied, InvalidInput, NotFound, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.models.spec.targets import Target
from kohakuriver.models.tasks import TaskSpec
from kohakuriver.wire.messages import AttemptState, EnrolRequest, OrderAnswer
from kohakuriver.wire.trust.enrolment import JoinToken, join_proof
from kohakuriver.wire.trust.identity import Identity
from support.host.control import Room, play


async def until(room: Room, task_id: TaskId, state: TaskState) -> None:
    for _ in range(400):
        if await room.state(task_id) is state:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the task never became {state.value}")


def test_a_task_goes_from_submission_to_completion_with_its_history(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join()
        task_id = await room.submit()
        assert await room.state(task_id) is TaskState.ASSIGNING
        assert await room.accept_orders() == [task_id]
        await room.report(task_id, TaskState.RUNNING, 1)
        await room.report(task_id, TaskState.COMPLETED, 2, exit_code=0, stdout_bytes=5)
        task = await room.control.tasks.find(task_id)
        assert (task.state, task.attempt.exit_code, task.attempt.stdout_bytes) == (TaskState.COMPLETED, 0, 5)
        history = [event.kind for event in await room.control.tasks.history(task_id)]
        assert history == ["submitted", "assigning", "running", "completed"]

    play(tmp_path, scenario)


def test_fifty_one_core_tasks_run_two_at_a_time_in_order(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join(cores=2)
        wanted = [await room.submit(node=None) for _ in range(50)]
        ran: list[int] = []
        for _ in range(50):
            taken = await room.accept_orders()
            ran += taken
            assert len(taken) <= 2
            if len(ran) == 50:
                break
            done = ran[-1] if len(taken) == 1 else ran[-2]
            await room.report(done, TaskState.COMPLETED, 1, exit_code=0)
            assert room.control.nodes.snapshots()[0].usage.cores <= 2
        assert ran == wanted

    play(tmp_path, scenario)


def test_a_commit_that_fails_answers_everybody_and_changes_nothing(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join()
        room.store.fail_writes(DiskFault("the host's database cannot be written: disk full"), 1)
        with pytest.raises(Unavailable, match="disk full"):
            await room.submit()
        assert room.control.figures.faults()
        await room.control.loop.watch.look()
        assert room.control.nodes.snapshots()[0].usage.cores == 0
        task_id = await room.submit()
        assert await room.accept_orders() == [task_id]
        assert not room.control.figures.faults()

    play(tmp_path, scenario)


def test_reports_of_old_attempts_other_nodes_and_repeats_change_nothing(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join("n1")
        await room.join("n2")
        task_id = await room.submit("n1")
        await room.report(task_id, TaskState.FAILED, 1, attempt=7)
        await room.report(task_id, TaskState.FAILED, 1, node="n2")
        assert await room.state(task_id) is TaskState.ASSIGNING
        await room.report(task_id, TaskState.RUNNING, 1)
        await room.report(task_id, TaskState.FAILED, 1)
        assert await room.state(task_id) is TaskState.RUNNING
        await room.report(task_id, TaskState.COMPLETED, 2, exit_code=0)
        await room.report(task_id, TaskState.FAILED, 3, exit_code=1)
        assert await room.state(task_id) is TaskState.COMPLETED

    play(tmp_path, scenario)


def test_an_end_that_overtook_the_start_is_taken(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join()
        task_id = await room.submit()
        await room.report(task_id, TaskState.KILLED_OOM, 2, exit_code=137)
        assert await room.state(task_id) is TaskState.KILLED_OOM

    play(tmp_path, scenario)


def test_a_restarted_host_goes_on_where_it_was(tmp_path: Path) -> None:
    async def before(room: Room) -> None:
        await room.join()
        for _ in range(3):
            await room.submit()
        await room.accept_orders()

    async def after(room: Room) -> None:
        tasks = sorted(await room.control.tasks.select(_everything()), key=lambda task: task.id)
        assert [task.state for task in tasks] == [TaskState.ASSIGNING] * 2 + [TaskState.PENDING]
        assert room.control.nodes.snapshots()[0].usage.cores == 2
        assert room.control.nodes.snapshots()[0].status is NodeStatus.OFFLINE
        await room.control.runners.apply_reports("n1", [])
        await room.report(tasks[0].id, TaskState.COMPLETED, 1, exit_code=0)
        assert await room.state(tasks[2].id) is TaskState.PENDING  # its node has not beaten yet
        held = AttemptState(task_id=str(tasks[1].id), attempt=1, status=TaskState.RUNNING, revision=1)
        await room.beat(attempts=[held])
        assert await room.accept_orders() == [tasks[2].id]
        assert max(t.id for t in tasks) < await room.submit()

    play(tmp_path, before)
    play(tmp_path, after)


def _everything() -> Any:
    from kohakuriver.host.control import TaskFilter

    return TaskFilter(limit=100)


def test_a_silent_node_loses_its_tasks_and_gives_them_back(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join()
        task_id = await room.submit()
        await room.accept_orders()
        await room.report(task_id, TaskState.RUNNING, 1)
        await until(room, task_id, TaskState.LOST)
        assert room.control.nodes.snapshots()[0].status is NodeStatus.OFFLINE
        held = AttemptState(task_id=str(task_id), attempt=1, status=TaskState.RUNNING, revision=1)
        assert await room.beat(attempts=[held], orders_seen=1 << 62) == []
        assert await room.state(task_id) is TaskState.RUNNING

    play(tmp_path, scenario, check_seconds=0.1)


def test_a_workload_that_the_host_does_not_know_is_ended(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join()
        stranger = AttemptState(task_id="42", attempt=1, status=TaskState.RUNNING, revision=1)
        assert [end.task_id for end in await room.beat(attempts=[stranger])] == ["42"]
        task_id = await room.submit()
        assert await room.state(task_id) is TaskState.PENDING  # more runs there than the ledger knows
        assert await room.beat() == []
        assert await room.state(task_id) is TaskState.ASSIGNING

    play(tmp_path, scenario)


def test_kill_ends_a_waiting_task_at_once_and_a_running_one_by_order(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join(cores=1)
        running, waiting = await room.submit(), await room.submit()
        await room.accept_orders()
        await room.report(running, TaskState.RUNNING, 1)
        await room.control.tasks.kill(waiting)
        assert await room.state(waiting) is TaskState.KILLED
        await room.control.tasks.kill(running)
        await room.control.tasks.kill(running)
        assert [order.kind for order in room.control.runners.orders_for("n1", 10)] == [OrderKind.KILL]
        await room.report(running, TaskState.KILLED, 2)
        assert room.control.runners.orders_for("n1", 10) == []
        with pytest.raises(Conflict, match="ended already"):
            await room.control.tasks.kill(running)

    play(tmp_path, scenario)


def test_an_order_that_the_runner_refuses_fails_its_task_with_the_reason(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join()
        task_id = await room.submit()
        (order,) = room.control.runners.orders_for("n1", 10)
        refused = OrderAnswer(order_id=order.order_id, accepted=False, detail="no such GPU")
        await room.control.runners.orders_answered("n1", [refused])
        task = await room.control.tasks.find(task_id)
        assert (task.state, task.error_message) == (TaskState.FAILED, "no such GPU")

    play(tmp_path, scenario)


def test_a_node_cannot_answer_the_orders_of_another(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join("n1")
        await room.join("n2")
        task_id = await room.submit("n1")
        (order,) = room.control.runners.orders_for("n1", 10)
        for accepted in (True, False):
            answer = OrderAnswer(order_id=order.order_id, accepted=accepted, detail="n2 says so")
            await room.control.runners.orders_answered("n2", [answer])
        assert room.control.runners.orders_for("n1", 10) == [order]
        assert (await room.control.tasks.find(task_id)).state is TaskState.ASSIGNING

    play(tmp_path, scenario)


def test_targets_that_do_not_exist_are_refused_one_by_one(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join()
        with pytest.raises(NotFound, match="there is no node 'n9'"):
            await room.submit("n9")
        with pytest.raises(InvalidInput, match="NUMA"):
            await room.control.tasks.submit("alice", [TaskSpec("true", target=Target("n1", 7))], False)
        both = [TaskSpec("true", target=Target("n1")), TaskSpec("true", target=Target("n9"))]
        result = await room.control.tasks.submit("alice", both, False)
        assert [target for target, _ in result.failed] == ["n9"]
        assert [task.spec.target for task in result.tasks] == [Target("n1")]

    play(tmp_path, scenario)


def test_a_task_that_no_node_can_ever_hold_waits_and_says_why(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join(cores=2)
        task_id = await room.submit(node=None, required_cores=64)
        task = await room.control.tasks.find(task_id)
        assert task.state is TaskState.PENDING
        assert "no node of the cluster can ever hold it" in (task.error_message or "")
        assert room.control.tasks.pending_reasons(task)[0][0] == "n1"
        await room.join("big", cores=64)
        assert await room.state(task_id) is TaskState.ASSIGNING

    play(tmp_path, scenario)


def test_approval_lets_a_task_into_the_queue_and_rejection_keeps_it_out(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join()
        first, second = [
            (await room.control.tasks.submit("bob", [TaskSpec("true")], needs_approval=True)).tasks[0].id
            for _ in range(2)
        ]
        assert await room.state(first) is TaskState.PENDING_APPROVAL
        await room.control.tasks.approve(first, "root")
        await room.control.tasks.reject(second, "root", "not now")
        assert await room.state(first) is TaskState.ASSIGNING
        rejected = await room.control.tasks.find(second)
        assert (rejected.state, rejected.error_message) == (TaskState.REJECTED, "not now")
        with pytest.raises(Conflict):
            await room.control.tasks.approve(first, "root")

    play(tmp_path, scenario)


def _joining(room: Room, text: str, name: str, identity: Identity) -> EnrolRequest:
    token = JoinToken.parse(text)
    proof = join_proof(token.secret, name, identity.public_key, room.control.host_public_key)
    return EnrolRequest(
        hostname=name, public_key=identity.public_key, join_token_id=token.token_id, join_proof=proof
    )


def test_a_join_token_takes_in_exactly_one_node(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        _, text = await room.control.nodes.create_join_token("admin", 1)
        requests = [_joining(room, text, f"n{i}", Identity.generate()) for i in range(5)]
        answers = await asyncio.gather(
            *(room.control.runners.enrol(request) for request in requests), return_exceptions=True
        )
        assert sum(not isinstance(answer, BaseException) for answer in answers) == 1
        assert sum(isinstance(answer, Denied) for answer in answers) == 4
        assert len(room.control.nodes.snapshots()) == 1

    play(tmp_path, scenario)


def test_an_expired_forged_or_deleted_join_token_is_denied(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        _, expired = await room.control.nodes.create_join_token("admin", 0)
        row, deleted = await room.control.nodes.create_join_token("admin", 1)
        await room.control.nodes.delete_join_token(row.id)
        _, good = await room.control.nodes.create_join_token("admin", 1)
        forged = _joining(room, good, "n1", Identity.generate())
        requests = [_joining(room, text, "n1", Identity.generate()) for text in (expired, deleted)]
        for request in [
            *requests,
            EnrolRequest(
                hostname="n2",
                public_key=forged.public_key,
                join_token_id=forged.join_token_id,
                join_proof=forged.join_proof,
            ),
        ]:
            with pytest.raises(Denied):
                await room.control.runners.enrol(request)

    play(tmp_path, scenario)


def test_a_name_that_is_taken_keeps_its_key(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join("n1")
        with pytest.raises(Conflict, match="another key"):
            await room.control.runners.enrol(
                EnrolRequest(hostname="n1", public_key=Identity.generate().public_key)
            )

    play(tmp_path, scenario)
