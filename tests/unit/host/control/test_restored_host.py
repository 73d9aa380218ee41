"""A host restored from a backup meets nodes that went on: nothing is given out twice, no work is ended."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from kohakuriver.host.backup import create_backup, restore_backup
from kohakuriver.host.backup.archive import KEY_NAME
from kohakuriver.host.store.writes import meta_value
from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.ids import TaskId
from kohakuriver.wire.messages import AttemptState
from kohakuriver.wire.trust.identity import Identity
from support.host.control import CLUSTER_ID, Room, control_room

S = TaskState
Scene = Callable[[Room], Awaitable[None]]


class Story:
    """What happens before the backup, between backup and restore, and after that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ids: list[TaskId] = []

    def play(self, before: Scene, between: Scene, after: Scene) -> None:
        async def run() -> None:
            async with self._room() as room:
                await before(room)
                await asyncio.to_thread(create_backup, self.folder / "host.db", self.folder / "backup")
                await between(room)
            restore_backup(self.folder / "backup", self.folder / "host.db", force=True)
            async with self._room() as room:
                await after(room)

        asyncio.run(run())

    @contextlib.asynccontextmanager
    async def _room(self) -> AsyncIterator[Room]:
        Identity.load_or_create(self.folder / KEY_NAME)
        async with control_room(self.folder) as room:
            await room.store.write(partial(meta_value, key="cluster_id", default=CLUSTER_ID))
            yield room


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


def held(task: TaskId, state: TaskState = S.RUNNING, attempt: int = 1, revision: int = 1) -> AttemptState:
    return AttemptState(task_id=str(task), attempt=attempt, status=state, revision=revision)


async def run_task(room: Room, task: TaskId, node: str = "n1") -> None:
    """Have the node take its orders and report the task as running."""
    await room.accept_orders(node)
    await room.report(task, S.RUNNING, 1, node=node)


async def back(room: Room, *attempts: AttemptState, node: str = "n1", seen: int = 0) -> list[AttemptState]:
    """The node comes back with what it holds; returns what it is to end."""
    await room.register(node)
    return await room.beat(node, list(attempts), seen)


async def nothing(room: Room) -> None:
    return


def test_what_waited_in_the_backup_and_runs_meanwhile_goes_on(story: Story) -> None:
    async def before(room: Room) -> None:
        await room.join()
        story.ids = [await room.submit(required_cores=2) for _ in range(2)]
        await run_task(room, story.ids[0])

    async def between(room: Room) -> None:
        await room.report(story.ids[0], S.COMPLETED, 2, exit_code=0)
        await run_task(room, story.ids[1])

    async def after(room: Room) -> None:
        task = story.ids[1]
        assert await room.state(task) is S.PENDING_APPROVAL
        assert "may have run since" in ((await room.control.tasks.find(task)).error_message or "")
        assert await back(room, held(task)) == []
        record = await room.control.tasks.find(task)
        assert (record.state, record.attempt.number, record.assigned_node) == (S.RUNNING, 1, "n1")
        assert (record.attempt.stdout_path or "").endswith(f"{task}/stdout.log")
        await room.report(task, S.COMPLETED, 2, exit_code=0)
        assert await room.state(task) is S.COMPLETED

    story.play(before, between, after)


def test_what_waited_and_has_ended_since_runs_again_on_an_operators_word_alone(story: Story) -> None:
    async def before(room: Room) -> None:
        await room.join(cores=1)
        story.ids = [await room.submit() for _ in range(2)]
        await run_task(room, story.ids[0])

    async def between(room: Room) -> None:
        await room.report(story.ids[0], S.COMPLETED, 2, exit_code=0)
        await run_task(room, story.ids[1])
        await room.report(story.ids[1], S.COMPLETED, 2, exit_code=0)

    async def after(room: Room) -> None:
        first, second = story.ids
        await back(room)
        assert await room.state(second) is S.PENDING_APPROVAL
        ended = await room.control.tasks.find(first)
        assert ended.state is S.FAILED
        assert "how it ended is not known" in (ended.error_message or "")
        await room.control.tasks.approve(second, "ada")
        again = await room.control.tasks.find(second)
        assert (again.state, again.error_message) == (S.ASSIGNING, None)
        assert again.attempt.number > 1_000_000  # above every number that was given out since the backup
        assert [order.attempt for order in room.control.runners.orders_for("n1", 10)] == [
            again.attempt.number
        ]

    story.play(before, between, after)


def test_a_report_that_waited_on_the_node_counts_before_its_first_heartbeat(story: Story) -> None:
    async def before(room: Room) -> None:
        await room.join(cores=1)
        story.ids = [await room.submit() for _ in range(2)]
        await run_task(room, story.ids[0])

    async def between(room: Room) -> None:
        await room.report(story.ids[0], S.COMPLETED, 2, exit_code=0)
        await run_task(room, story.ids[1])

    async def after(room: Room) -> None:
        await room.register()
        await room.report(story.ids[1], S.FAILED, 2, exit_code=3)
        record = await room.control.tasks.find(story.ids[1])
        assert (record.state, record.attempt.exit_code, record.attempt.number) == (S.FAILED, 3, 1)

    story.play(before, between, after)


def test_what_ran_in_the_backup_and_runs_still_is_left_in_peace(story: Story) -> None:
    async def before(room: Room) -> None:
        await room.join()
        story.ids = [await room.submit(), await room.submit()]
        await room.accept_orders()
        await room.report(story.ids[0], S.RUNNING, 1)

    async def between(room: Room) -> None:
        await room.report(story.ids[1], S.RUNNING, 1)
        await room.control.tasks.pause(story.ids[0])
        await room.accept_orders()
        await room.report(story.ids[0], S.PAUSED, 2)

    async def after(room: Room) -> None:
        paused, running = story.ids
        assert await back(room, held(paused, S.PAUSED, revision=2), held(running)) == []
        assert (await room.state(paused), await room.state(running)) == (S.PAUSED, S.RUNNING)
        await room.report(paused, S.RUNNING, 3)
        await room.report(paused, S.COMPLETED, 4, exit_code=0)
        assert await room.state(paused) is S.COMPLETED

    story.play(before, between, after)


def test_an_order_of_the_backup_is_not_sent_again(story: Story) -> None:
    async def before(room: Room) -> None:
        await room.join()
        story.ids = [await room.submit(), await room.submit()]

    async def between(room: Room) -> None:
        await run_task(room, story.ids[0])
        await room.report(story.ids[1], S.RUNNING, 1)
        await room.report(story.ids[1], S.COMPLETED, 2, exit_code=0)

    async def after(room: Room) -> None:
        running, ended = story.ids
        assert room.control.runners.orders_for("n1", 10) == []
        assert await back(room, held(running)) == []
        assert await room.state(running) is S.RUNNING
        assert await room.state(ended) is S.PENDING_APPROVAL
        assert room.control.runners.orders_for("n1", 10) == []

    story.play(before, between, after)


def test_work_that_was_submitted_after_the_backup_is_left_alone(story: Story) -> None:
    async def before(room: Room) -> None:
        await room.join(cores=1)

    async def between(room: Room) -> None:
        story.ids = [await room.submit()]
        await run_task(room, story.ids[0])

    async def after(room: Room) -> None:
        newer = story.ids[0]
        assert await back(room, held(newer)) == []
        fresh = await room.submit()
        assert fresh > newer
        # What it holds is on no ledger, so nothing is put beside it.
        assert await room.state(fresh) is S.PENDING
        reasons = room.control.tasks.pending_reasons(await room.control.tasks.find(fresh))
        assert any("lost when it was restored" in reason for _, reason in reasons)
        await room.report(newer, S.COMPLETED, 2, exit_code=0)
        await room.beat()
        assert await room.state(fresh) is S.ASSIGNING

    story.play(before, between, after)


def test_a_stray_that_no_restore_explains_is_ended(story: Story) -> None:
    async def before(room: Room) -> None:
        await room.join()
        story.ids = [await room.submit()]

    async def after(room: Room) -> None:
        stray = held(TaskId(story.ids[0] - 1))
        assert [end.task_id for end in await back(room, stray)] == [stray.task_id]

    story.play(before, nothing, after)


def test_a_newer_attempt_wins_over_the_one_of_the_backup(story: Story) -> None:
    """n1 fell silent after the backup and the task was tried again on n2."""

    async def before(room: Room) -> None:
        await room.join("n1")
        await room.join("n2")
        story.ids = [await room.submit(node=None, retries=1)]
        await run_task(room, story.ids[0], (await room.control.tasks.find(story.ids[0])).assigned_node or "")

    async def after(room: Room) -> None:
        task = story.ids[0]
        old = (await room.control.tasks.find(task)).assigned_node or ""
        new = "n1" if old == "n2" else "n2"
        assert await back(room, held(task, attempt=2), node=new) == []
        record = await room.control.tasks.find(task)
        assert (record.attempt.number, record.assigned_node, record.state) == (2, new, S.RUNNING)
        assert "attempt-2" in (record.attempt.stdout_path or "")
        assert [end.attempt for end in await back(room, held(task), node=old)] == [1]
        assert (await room.control.tasks.find(task)).attempt.number == 2

    story.play(before, nothing, after)


def test_a_kill_that_was_asked_for_reaches_the_attempt_that_is_found(story: Story) -> None:
    async def before(room: Room) -> None:
        await room.join()
        story.ids = [await room.submit()]
        await run_task(room, story.ids[0])
        await room.control.tasks.kill(story.ids[0])

    async def after(room: Room) -> None:
        await back(room, held(story.ids[0], attempt=2))
        orders = room.control.runners.orders_for("n1", 10)
        assert [(order.kind, order.attempt) for order in orders] == [(OrderKind.KILL, 2)]

    story.play(before, nothing, after)


def test_after_its_first_heartbeat_a_node_cannot_claim_a_task_any_more(story: Story) -> None:
    async def before(room: Room) -> None:
        await room.join("n1")
        await room.join("n2")
        story.ids = [await room.submit("n1")]
        await run_task(room, story.ids[0])

    async def after(room: Room) -> None:
        task = story.ids[0]
        await back(room, held(task))
        await back(room, node="n2")
        assert len(await room.beat("n2", [held(task, attempt=7)])) == 1
        await room.report(task, S.COMPLETED, 3, attempt=7, node="n2", exit_code=0)
        record = await room.control.tasks.find(task)
        assert (record.state, record.attempt.number, record.assigned_node) == (S.RUNNING, 1, "n1")

    story.play(before, nothing, after)


def test_what_an_incomplete_first_list_does_not_name_is_not_taken_for_gone(story: Story) -> None:
    """A runner that beats before its engine was looked at may hold more than it tells."""

    async def before(room: Room) -> None:
        await room.join()
        story.ids = [await room.submit()]
        await run_task(room, story.ids[0])

    async def after(room: Room) -> None:
        task = story.ids[0]
        await room.register()
        await room.beat(complete=False)
        assert await room.state(task) is S.RUNNING
        assert await room.beat(attempts=[held(task, attempt=2)]) == []
        record = await room.control.tasks.find(task)
        assert (record.state, record.attempt.number) == (S.RUNNING, 2)

    story.play(before, nothing, after)


def test_join_tokens_of_the_backup_are_void_and_a_second_start_changes_nothing(story: Story) -> None:
    async def before(room: Room) -> None:
        await room.join(cores=1)
        await room.control.nodes.create_join_token("ada", 1)
        story.ids = [await room.submit(), await room.submit()]

    async def after(room: Room) -> None:
        assert room.control.nodes.join_tokens() == []
        await room.control.tasks.approve(story.ids[1], "ada")
        await room.control.nodes.create_join_token("ada", 1)

    async def later() -> None:
        async with control_room(story.folder) as room:
            assert await room.state(story.ids[1]) is S.PENDING
            assert len(room.control.nodes.join_tokens()) == 1

    story.play(before, nothing, after)
    asyncio.run(later())


def test_new_orders_are_numbered_above_what_a_runner_has_seen(story: Story) -> None:
    """Else a heartbeat would be taken for one that knows of them."""

    async def before(room: Room) -> None:
        await room.join()

    async def between(room: Room) -> None:
        story.ids = [await room.submit()]

    async def after(room: Room) -> None:
        seen = story.ids[0] + (3_600_000 << 22)  # as given out by a clock that was an hour ahead
        await back(room, seen=seen)
        await room.submit()
        assert [order.order_id > seen for order in room.control.runners.orders_for("n1", 10)] == [True]

    story.play(before, between, after)
