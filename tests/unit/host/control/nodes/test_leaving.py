"""How a node leaves: drained, opened again, removed; and what becomes of the work that is there."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.models.enums import EnrolState, NodeStatus, OrderKind, TaskState
from kohakuriver.models.errors import Conflict, Denied, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.wire.messages import AttemptState, EnrolRequest, Heartbeat
from kohakuriver.wire.trust.enrolment import JoinToken, join_proof
from kohakuriver.wire.trust.identity import Identity
from support.host.control import Room, play

S = TaskState


async def running(room: Room, **fields: Any) -> TaskId:
    """A task that runs on n1, with n2 beside it."""
    if not room.control.nodes.snapshots():
        await room.join("n1")
    return await room.begin(node=None, **fields)


def open_orders(room: Room, node: str = "n1") -> list[tuple[OrderKind, int, int]]:
    return [
        (order.kind, int(order.task_id), order.attempt)
        for order in room.control.runners.orders_for(node, 100)
    ]


def test_a_drained_node_gets_no_new_work_and_keeps_what_it_has(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        held = await running(room)
        assert [task.id for task in await room.control.nodes.drain("n1", False, "ada")] == [held]
        waiting = await room.submit(node="n1")
        task = await room.control.tasks.find(waiting)
        assert task.state is S.PENDING
        assert room.control.tasks.pending_reasons(task) == [("n1", "is being drained")]
        assert open_orders(room) == []
        [shown] = room.control.nodes.snapshots()
        assert (shown.row.draining, shown.tasks, shown.status) == (True, 1, NodeStatus.ONLINE)
        await room.control.nodes.undrain("n1")
        assert await room.state(waiting) is S.ASSIGNING

    play(tmp_path, scenario)


def test_a_drain_outlives_a_restart_of_the_host_and_of_the_runner(tmp_path: Path) -> None:
    async def before(room: Room) -> None:
        await room.join("n1")
        await room.control.nodes.drain("n1", False, "ada")
        await room.register("n1", boot_id="boot-2")

    async def after(room: Room) -> None:
        assert room.control.nodes.snapshots()[0].row.draining

    play(tmp_path, before)
    play(tmp_path, after)


def test_a_move_ends_what_may_run_again_and_puts_it_back_without_using_a_retry(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        stays, moves = await running(room), await running(room, retries=1)
        await room.join("n2")
        await room.control.nodes.drain("n1", True, "ada")
        assert open_orders(room) == [(OrderKind.KILL, moves, 1)]
        await room.control.nodes.drain("n1", True, "ada")
        assert len(open_orders(room)) == 1
        await room.accept_orders()
        await room.report(moves, S.KILLED, 2, message="killed on request")
        task = await room.control.tasks.find(moves)
        assert (task.state, task.assigned_node, task.attempt.number) == (S.ASSIGNING, "n2", 2)
        assert task.retries_used == 0
        assert not task.move_requested
        assert await room.state(stays) is S.RUNNING
        kinds = [event.kind for event in await room.control.tasks.history(moves)]
        assert kinds[-4:] == ["move_requested", "lost", "moved", "assigning"]

    play(tmp_path, scenario)


def test_what_is_being_moved_is_still_known_to_be_after_a_restart_of_the_host(tmp_path: Path) -> None:
    ids: list[TaskId] = []

    async def before(room: Room) -> None:
        ids.append(await running(room, retries=1))
        await room.control.nodes.drain("n1", True, "ada")

    async def after(room: Room) -> None:
        await room.report(ids[0], S.KILLED, 2)
        task = await room.control.tasks.find(ids[0])
        assert (task.state, task.retries_used) == (S.PENDING, 0)

    play(tmp_path, before)
    play(tmp_path, after)


def test_an_end_that_is_reported_before_the_order_was_answered_strikes_the_order_off(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await running(room, retries=1)
        await room.control.nodes.drain("n1", True, "ada")
        await room.report(task_id, S.KILLED, 2)
        assert open_orders(room) == []
        assert await room.state(task_id) is S.PENDING

    play(tmp_path, scenario)


def test_a_users_kill_wins_over_a_move(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await running(room, retries=1)
        await room.control.nodes.drain("n1", True, "ada")
        await room.control.tasks.kill(task_id)
        await room.report(task_id, S.KILLED, 2)
        assert await room.state(task_id) is S.KILLED

    play(tmp_path, scenario)


def test_a_task_that_ends_by_itself_while_it_is_moved_has_ended(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await running(room, retries=1)
        await room.control.nodes.drain("n1", True, "ada")
        await room.report(task_id, S.COMPLETED, 2, exit_code=0)
        assert await room.state(task_id) is S.COMPLETED

    play(tmp_path, scenario)


def test_a_node_that_holds_work_is_not_removed_and_the_refusal_names_the_work(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await running(room)
        with pytest.raises(Conflict, match=str(task_id)):
            await room.control.nodes.remove("n1", force=False)
        assert await room.state(task_id) is S.RUNNING
        await room.report(task_id, S.COMPLETED, 2, exit_code=0)
        await room.control.nodes.remove("n1", force=False)
        assert room.control.nodes.snapshots() == []
        for call in (room.control.nodes.drain("n1", False, "ada"), room.beat("n1")):
            with pytest.raises(NotFound):
                await call

    play(tmp_path, scenario)


def test_a_forced_removal_fails_what_ran_there_and_retries_what_may_run_again(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        fails, again = await running(room), await running(room, retries=1)
        await room.join("n2")
        await room.control.tasks.kill(fails)
        waits = await room.submit(node="n1")
        killed = await room.submit(node=None)
        assert open_orders(room) != []
        await room.control.nodes.remove("n1", force=True)
        assert room.control.runners.nodes_with_orders() == {"n2"}
        assert await room.state(fails) is S.KILLED
        task = await room.control.tasks.find(again)
        assert (task.state, task.assigned_node, task.retries_used) == (S.ASSIGNING, "n2", 1)
        assert await room.state(waits) is S.PENDING
        assert await room.state(killed) is S.ASSIGNING

    play(tmp_path, scenario)


def test_a_task_of_a_removed_node_fails_with_a_sentence(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await running(room)
        await room.control.nodes.remove("n1", force=True)
        task = await room.control.tasks.find(task_id)
        assert task.state is S.FAILED
        assert task.completed_at is not None
        assert "n1 was removed" in (task.error_message or "")
        kinds = [event.kind for event in await room.control.tasks.history(task_id)]
        assert kinds[-2:] == ["node_removed", "node_removed"]

    play(tmp_path, scenario)


def test_the_key_of_a_removed_node_is_worth_nothing_and_a_new_one_may_take_its_name(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await running(room)
        assert room.control.runners.link_keys("n1") is not None
        await room.control.nodes.remove("n1", force=True)
        assert room.control.runners.link_keys("n1") is None
        assert room.control.runners.link_keys("n1") is None
        assert room.control.runners.dispatch_address("n1") is None
        await room.join("n1")
        alive = AttemptState(task_id=str(task_id), attempt=1, status=S.RUNNING, revision=1)
        assert [end.task_id for end in await room.beat("n1", [alive])] == [str(task_id)]

    play(tmp_path, scenario)


def test_a_removed_node_does_not_come_back_by_the_join_token_that_it_used(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        identity = Identity.generate()
        _, text = await room.control.nodes.create_join_token("ada", 1)
        token = JoinToken.parse(text)
        keys = ("n1", identity.public_key, room.control.host_public_key)
        request = EnrolRequest(
            hostname="n1",
            public_key=identity.public_key,
            join_token_id=token.token_id,
            join_proof=join_proof(token.secret, *keys),
        )
        assert (await room.control.runners.enrol(request)).state is EnrolState.APPROVED
        await room.control.nodes.remove("n1", force=False)
        with pytest.raises(Denied, match="not valid"):
            await room.control.runners.enrol(request)
        bare = EnrolRequest(hostname="n1", public_key=identity.public_key)
        assert (await room.control.runners.enrol(bare)).state is EnrolState.PENDING
        await room.control.nodes.approve("n1", None, "ada")
        assert room.control.runners.link_keys("n1") is not None

    play(tmp_path, scenario)


def test_a_node_that_is_removed_and_approved_in_one_turn_is_there_after_a_restart(tmp_path: Path) -> None:
    key = Identity.generate().public_key

    async def before(room: Room) -> None:
        await room.join("n1")
        await asyncio.gather(
            room.control.nodes.remove("n1", force=False),
            room.control.runners.enrol(EnrolRequest(hostname="n1", public_key=key)),
            room.control.nodes.approve("n1", None, "ada"),
        )

    async def after(room: Room) -> None:
        assert [(node.row.hostname, node.row.public_key) for node in room.control.nodes.snapshots()] == [
            ("n1", key)
        ]

    play(tmp_path, before)
    play(tmp_path, after)


def test_messages_of_a_node_that_is_being_removed_harm_nobody(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join("n1")
        await room.join("n2")
        beat = Heartbeat(revision=99, boot_id="boot-1")
        answers = await asyncio.gather(
            room.control.nodes.remove("n1", force=False),
            room.control.runners.heartbeat("n1", beat),
            room.register("n1", boot_id="boot-2"),
            room.control.runners.heartbeat("n2", beat),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers[:3]] == [type(None), NotFound, NotFound]
        assert getattr(answers[3], "known", False)

    play(tmp_path, scenario)
