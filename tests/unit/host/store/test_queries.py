"""Reads of the store at size: each takes the index that narrows most, whatever the table holds."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, insert

from kohakuriver.host.store import queries, tables
from kohakuriver.host.store.queries import TaskFilter
from kohakuriver.host.store.records import Changes, StoredEvent, TaskEvent
from kohakuriver.host.store.rows import to_micros
from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.host.store.writes import apply_changes
from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import TaskState, TaskType
from kohakuriver.models.events import EventKind
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task, TaskSpec

COMMANDS = TaskType.COMMAND


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    open_store(tmp_path / "host.db").close()
    engine = create_engine(f"sqlite:///{tmp_path}/host.db")
    yield engine
    engine.dispose()


def plan_of(engine: Engine, query: Callable[[Connection], Any]) -> str:
    """What SQLite does for the statements of one read."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    with engine.connect() as connection:
        event.listen(engine, "before_cursor_execute", note)
        query(connection)
        event.remove(engine, "before_cursor_execute", note)
        rows = [
            row
            for statement, parameters in statements
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    return "; ".join(row[3] for row in rows)


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (TaskFilter(COMMANDS), "tasks_by_type"),
        (TaskFilter(COMMANDS, TaskState.RUNNING), "tasks_by_state"),
        (TaskFilter(state=TaskState.PENDING_APPROVAL), "tasks_by_state"),
        (TaskFilter(COMMANDS, node="n1"), "tasks_by_node"),
        (TaskFilter(COMMANDS, owner="alice"), "tasks_by_owner"),
        (TaskFilter(COMMANDS, TaskState.LOST, node="n1"), "tasks_by_node_state"),
        (TaskFilter(COMMANDS, TaskState.KILLED_OOM, owner="alice"), "tasks_by_owner_state"),
        (TaskFilter(COMMANDS, TaskState.COMPLETED, name="train"), "tasks_by_name"),
        (TaskFilter(COMMANDS, node="n1", name="train"), "tasks_by_name"),
    ],
)
def test_a_list_is_read_along_the_index_that_narrows_most(
    engine: Engine, wanted: TaskFilter, index: str
) -> None:
    plan = plan_of(engine, lambda connection: queries.list_tasks(connection, wanted))
    assert f"USING INDEX {index} " in plan
    assert "TEMP B-TREE" not in plan, "newest first must need no sorting"
    assert "SCAN" not in plan


@pytest.mark.parametrize(
    "query",
    [
        lambda connection: queries.find_task(connection, TaskId(1)),
        lambda connection: queries.task_history(connection, TaskId(1)),
        lambda connection: queries.events_after(connection, 1, 500),
        queries.live_tasks,
        queries.newest_id,
        queries.newest_event,
    ],
    ids=["find", "history", "events", "live", "newest id", "newest event"],
)
def test_no_other_read_walks_through_a_whole_table(
    engine: Engine, query: Callable[[Connection], Any]
) -> None:
    assert "SCAN" not in plan_of(engine, query)


def test_the_end_of_an_id_is_looked_up_in_an_index_alone(engine: Engine) -> None:
    plan = plan_of(engine, lambda connection: queries.task_ids_ending(connection, "1234", 2))
    assert "USING COVERING INDEX" in plan


def task(number: int, state: TaskState = TaskState.PENDING, **fields: Any) -> Task:
    spec = TaskSpec("true", ("--seed", "1"), name=fields.pop("name", None))
    return Task(TaskId(number), spec, state, fields.pop("owner", "alice"), datetime.now(UTC), **fields)


def test_lists_hold_what_was_asked_for_newest_first(engine: Engine) -> None:
    tasks = [
        task(1, TaskState.COMPLETED, attempt=Attempt(1, "n1"), name="train"),
        task(2, TaskState.RUNNING, attempt=Attempt(1, "n1"), owner="bob"),
        task(3, TaskState.COMPLETED, attempt=Attempt(1, "n2"), name="train"),
        task(4, owner="bob"),
    ]
    with engine.begin() as connection:
        apply_changes(connection, Changes(new_tasks={one.id: one for one in tasks}))

    def ids(**wanted: Any) -> list[int]:
        with engine.connect() as connection:
            return [int(one.id) for one in queries.list_tasks(connection, TaskFilter(COMMANDS, **wanted))]

    assert ids() == [4, 3, 2, 1]
    assert ids(state=TaskState.COMPLETED) == [3, 1]
    assert ids(state=TaskState.COMPLETED, node="n1") == [1]
    assert ids(node="n1") == [2, 1]
    assert ids(owner="bob", state=TaskState.RUNNING) == [2]
    assert ids(name="train", node="n2") == [3]
    assert ids(limit=2, offset=1) == [3, 2]


def test_events_come_with_their_numbers_and_the_owner_of_their_task(engine: Engine) -> None:
    changes = Changes(new_tasks={TaskId(7): task(7, owner="bob")})
    changes.events += [
        TaskEvent(TaskId(7), datetime.now(UTC), kind, 0)
        for kind in (EventKind.SUBMITTED, EventKind.ASSIGNING, EventKind.RUNNING)
    ]
    with engine.begin() as connection:
        apply_changes(connection, changes)
    with engine.connect() as connection:
        assert queries.newest_event(connection) == 3
        found = queries.events_after(connection, 1, 10)
    assert [(one.number, one.owner, one.event.kind) for one in found] == [
        (2, "bob", "assigning"),
        (3, "bob", "running"),
    ]


def test_events_of_kinds_that_this_version_does_not_know_are_read(engine: Engine) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    with engine.begin() as connection:
        apply_changes(connection, Changes(new_tasks={TaskId(7): task(7)}))
        connection.execute(
            insert(tables.task_events),
            {"task_id": 7, "at": to_micros(at), "kind": "dreamt", "attempt": 1, "detail": None},
        )
    with engine.connect() as connection:
        assert queries.task_history(connection, TaskId(7)) == [StoredEvent(TaskId(7), at, "dreamt", 1)]
        assert [one.event.kind for one in queries.events_after(connection, 0, 10)] == ["dreamt"]


def test_waiting_tasks_that_ask_for_the_same_share_one_record_of_it(engine: Engine) -> None:
    with engine.begin() as connection:
        apply_changes(connection, Changes(new_tasks={TaskId(n): task(n) for n in (1, 2)}))
    with engine.connect() as connection:
        one, other = queries.live_tasks(connection)
    assert one.spec is other.spec
