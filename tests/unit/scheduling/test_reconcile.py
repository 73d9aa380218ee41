from datetime import UTC, datetime

import pytest

from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import TaskState
from kohakuriver.models.events import EventKind
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.transitions import ENDED, HOLDING
from kohakuriver.scheduling.reconcile import (
    Cause,
    Change,
    Differences,
    ExecuteOrder,
    ReportedAttempt,
    apply_change,
    reconcile_node,
    removed_node,
    silent_node,
)
from support.host.task_records import with_facts

S = TaskState
AT = datetime(2026, 1, 1, tzinfo=UTC)
ONE = TaskId(1)


def task(state: TaskState, **changes: object) -> Task:
    record = Task(ONE, TaskSpec("true"), state, "me", AT, attempt=Attempt(1, "n1", revision=1))
    return with_facts(record, **changes)


def seen(state: TaskState, attempt: int = 1, revision: int = 1) -> ReportedAttempt:
    return ReportedAttempt(ONE, attempt, state, revision)


def compare(
    record: Task | None, *reported: ReportedAttempt, order: ExecuteOrder | None = None, orders_seen: int = 10
) -> Differences:
    tasks = {} if record is None else {record.id: record}
    orders = {} if order is None else {ONE: order}
    return reconcile_node("n1", reported, orders_seen, tasks, orders)


def only_change(differences: Differences) -> Change:
    assert differences.end_attempts == ()
    (change,) = differences.changes
    return change


@pytest.mark.parametrize("state", [S.ASSIGNING, S.RUNNING, S.PAUSED])
def test_a_task_that_both_sides_know_makes_no_difference(state: TaskState) -> None:
    assert compare(task(state), seen(state)) == Differences()


@pytest.mark.parametrize(
    ("record", "cause"),
    [
        (None, Cause.UNKNOWN_TASK),
        (task(S.RUNNING, number=2), Cause.OLD_ATTEMPT),
        (task(S.PENDING), Cause.OLD_ATTEMPT),
        (task(S.RUNNING, node="n2"), Cause.OTHER_NODE),
        (task(S.KILLED), Cause.TASK_ENDED),
        (task(S.FAILED), Cause.TASK_ENDED),
    ],
)
def test_a_workload_that_must_not_be_there_is_ended(record: Task | None, cause: Cause) -> None:
    order = ExecuteOrder(99, acknowledged=False)
    for state in (S.ASSIGNING, S.RUNNING, S.PAUSED):
        differences = compare(record, seen(state), order=order)
        assert [(end.task_id, end.attempt, end.cause) for end in differences.end_attempts] == [(1, 1, cause)]
        assert differences.changes == ()


@pytest.mark.parametrize("state", sorted(ENDED - {S.REJECTED}))
def test_what_has_ended_on_the_node_is_not_ended_again(state: TaskState) -> None:
    assert compare(None, seen(state)) == Differences()


def test_a_list_that_is_older_than_the_last_report_ends_nothing() -> None:
    assert compare(task(S.COMPLETED, revision=2), seen(S.RUNNING, revision=1)) == Differences()


@pytest.mark.parametrize("state", [S.RUNNING, S.PAUSED])
def test_a_lost_task_that_is_alive_is_found_again(state: TaskState) -> None:
    change = only_change(compare(task(S.LOST, error_message="silent"), seen(state)))
    assert (change.cause, change.steps, change.message) == (EventKind.FOUND_AGAIN, (state,), None)
    found = apply_change(task(S.LOST, error_message="silent"), change, AT)
    assert (found.state, found.error_message, found.completed_at) == (state, None, None)


def test_a_list_that_is_older_than_the_last_report_finds_nothing_again() -> None:
    assert compare(task(S.LOST, revision=3), seen(S.PAUSED, revision=2)) == Differences()


def test_a_lost_task_that_has_not_started_or_has_ended_waits_for_its_report() -> None:
    for state in (S.ASSIGNING, S.COMPLETED, S.KILLED_OOM):
        assert compare(task(S.LOST), seen(state)) == Differences()


@pytest.mark.parametrize("state", [S.RUNNING, S.PAUSED, S.LOST])
def test_a_task_that_is_gone_from_its_node_has_failed(state: TaskState) -> None:
    change = only_change(compare(task(state), order=ExecuteOrder(10, acknowledged=True)))
    assert (change.cause, change.state) == (EventKind.VANISHED, S.FAILED)
    failed = apply_change(task(state), change, AT)
    assert failed.completed_at == AT
    assert "vanished from node n1" in (failed.error_message or "")


def test_a_task_that_vanished_after_a_kill_is_killed() -> None:
    for state in HOLDING:
        assert only_change(compare(task(state, kill_requested=True))).state is S.KILLED


def test_a_task_whose_order_the_node_lost_goes_back_to_the_queue() -> None:
    record = task(S.ASSIGNING, revision=0)
    change = only_change(compare(record, order=ExecuteOrder(10, acknowledged=True)))
    assert (change.cause, change.steps) == (EventKind.NEVER_STARTED, (S.PENDING,))
    waiting = apply_change(record, change, AT)
    assert (waiting.assigned_node, waiting.attempt.number, waiting.completed_at) == (None, 1, None)


@pytest.mark.parametrize("order", [ExecuteOrder(11, acknowledged=True), ExecuteOrder(9, acknowledged=False)])
@pytest.mark.parametrize("state", [S.ASSIGNING, S.RUNNING])
def test_a_list_made_before_the_order_says_nothing(state: TaskState, order: ExecuteOrder) -> None:
    assert compare(task(state), order=order) == Differences()


def test_an_order_of_an_earlier_boot_is_judged_by_any_list_of_this_one() -> None:
    assert only_change(compare(task(S.RUNNING), orders_seen=0)).state is S.FAILED


def test_tasks_of_other_nodes_and_waiting_or_ended_ones_are_not_missing() -> None:
    for record in (task(S.RUNNING, node="n2"), task(S.PENDING), *(task(state) for state in ENDED)):
        assert compare(record) == Differences()


@pytest.mark.parametrize("state", [S.RUNNING, S.PAUSED, S.ASSIGNING])
def test_tasks_of_a_silent_node_are_lost(state: TaskState) -> None:
    differences = silent_node("n1", [task(state)], {ONE: ExecuteOrder(3, acknowledged=True)})
    change = only_change(differences)
    assert (change.cause, change.steps) == (EventKind.NODE_SILENT, (S.LOST,))
    assert apply_change(task(state), change, AT).assigned_node == "n1"


def test_a_task_whose_order_never_arrived_at_a_silent_node_goes_back_to_the_queue() -> None:
    order = {ONE: ExecuteOrder(3, acknowledged=False)}
    assert only_change(silent_node("n1", [task(S.ASSIGNING)], order)).state is S.PENDING
    assert only_change(silent_node("n1", [task(S.ASSIGNING, kill_requested=True)], order)).state is S.KILLED


def test_silence_changes_nothing_of_other_nodes_or_of_what_is_lost_or_ended() -> None:
    records = [task(S.RUNNING, node="n2"), task(S.LOST), task(S.PENDING), *map(task, ENDED)]
    assert silent_node("n1", records, {}) == Differences()


def test_a_change_for_an_old_attempt_is_not_applied() -> None:
    change = only_change(compare(task(S.RUNNING)))
    with pytest.raises(ValueError, match="attempt 1"):
        apply_change(task(S.RUNNING, number=2), change, AT)


RETRYABLE = TaskSpec("true", retries=2)


def states_of(record: Task, changes: tuple[Change, ...]) -> list[TaskState]:
    """The states on record after each change."""
    states = []
    for change in changes:
        record = apply_change(record, change, AT)
        states.append(record.state)
    return states


@pytest.mark.parametrize("state", [S.RUNNING, S.PAUSED, S.ASSIGNING])
def test_a_task_that_may_run_again_is_lost_and_waits_anew_when_its_node_is_silent(state: TaskState) -> None:
    record = task(state, spec=RETRYABLE)
    changes = silent_node("n1", [record], {ONE: ExecuteOrder(3, acknowledged=True)}).changes
    assert [change.cause for change in changes] == [EventKind.NODE_SILENT, EventKind.RETRIED]
    assert states_of(record, changes) == [S.LOST, S.PENDING]


def test_a_retry_is_used_up_unless_the_attempt_was_ended_to_be_moved() -> None:
    for moved, used, cause in ((False, 1, EventKind.RETRIED), (True, 0, EventKind.MOVED)):
        record = task(S.LOST, spec=RETRYABLE, move_requested=moved)
        [change] = compare(record).changes
        after = apply_change(record, change, AT)
        assert (change.cause, after.retries_used, after.move_requested) == (cause, used, False)
        assert (after.assigned_node, after.previous_node, after.attempt.number) == (None, "n1", 1)


@pytest.mark.parametrize("state", [S.RUNNING, S.PAUSED])
def test_a_vanished_task_that_may_run_again_waits_anew(state: TaskState) -> None:
    record = task(state, spec=RETRYABLE)
    assert states_of(record, compare(record).changes) == [S.LOST, S.PENDING]
    used_up = task(state, spec=RETRYABLE, retries_used=2)
    assert states_of(used_up, compare(used_up).changes) == [S.FAILED]
    killed = task(state, spec=RETRYABLE, kill_requested=True)
    assert states_of(killed, compare(killed).changes) == [S.KILLED]


@pytest.mark.parametrize("state", [S.ASSIGNING, S.RUNNING, S.PAUSED, S.LOST])
def test_the_tasks_of_a_removed_node_are_failed_killed_or_run_again(state: TaskState) -> None:
    for fields, after in (
        ({}, S.FAILED),
        ({"kill_requested": True}, S.KILLED),
        ({"spec": RETRYABLE}, S.PENDING),
        ({"spec": RETRYABLE, "kill_requested": True}, S.KILLED),
    ):
        record = task(state, **fields)
        lost = [] if state is S.LOST else [S.LOST]
        assert states_of(record, removed_node("n1", [record])) == [*lost, after]


def test_a_removed_node_changes_nothing_of_other_nodes_and_of_what_waits() -> None:
    records = [task(S.RUNNING, node="n2"), task(S.PENDING), *map(task, ENDED)]
    assert removed_node("n1", records) == ()
