"""What is removed once it was kept for long enough, and that nothing else is."""

import asyncio
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.api.tasks.output import OutputReader
from kohakuriver.host.control.clock import Clock
from kohakuriver.host.retention import Retention, RetentionRules
from kohakuriver.host.retention.nodes import NodeParts
from kohakuriver.host.store import queries
from kohakuriver.host.store.records import Changes, TaskEvent
from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.host.store.store import Store
from kohakuriver.host.store.writes import apply_changes
from kohakuriver.models.enums import LeftoverKind, Stream, TaskState, TaskType
from kohakuriver.models.errors import NotFound
from kohakuriver.models.events import EventKind
from kohakuriver.models.ids import EPOCH_MS, TaskId
from kohakuriver.models.records import changed
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.transitions import FINAL
from kohakuriver.models.vps import VpsSpec
from kohakuriver.wire.messages import AttemptState
from support.host.api import ApiHarness, StandInLogs, play, retention_of
from support.host.control import control_room
from support.host.task_records import with_facts

S = TaskState
NOW = datetime(2030, 6, 1, tzinfo=UTC)
DAYS = {"output": 100, "tasks": 200, "events": 50}
LARGE = (("A", "x" * 4000),)
pytestmark = pytest.mark.anyio


class SetClock(Clock):
    """Stands still until it is moved; `jump` moves only the time of day."""

    def __init__(self) -> None:
        self.day = NOW
        self.passed = 0.0

    def now(self) -> datetime:
        return self.day

    def monotonic(self) -> float:
        return self.passed

    def jump(self, span: timedelta) -> None:
        self.day += span

    def wait(self, span: timedelta) -> None:
        self.day += span
        self.passed += span.total_seconds()


def id_of(days_ago: float, number: int = 0) -> TaskId:
    moment = NOW - timedelta(days=days_ago)
    return TaskId((int(moment.timestamp() * 1000) - EPOCH_MS << 22) + number)


def task(
    days_ago: float, state: TaskState = S.COMPLETED, *, submitted: float | None = None, **more: object
) -> Task:
    """A task that ended (or went on) so many days ago."""
    began = days_ago if submitted is None else submitted
    ended = NOW - timedelta(days=days_ago) if state in FINAL or state is S.STOPPED else None
    made = Task(
        id=id_of(began + 0.01, int(days_ago * 100)),
        spec=TaskSpec("true"),
        state=state,
        owner="ada",
        submitted_at=NOW - timedelta(days=began),
        completed_at=ended,
    )
    return with_facts(made, **more)


def vps(days_ago: float, state: TaskState) -> Task:
    spec = TaskSpec("", task_type=TaskType.VPS, vps=VpsSpec(), name=f"s-{state.value}")
    return task(days_ago, state, spec=spec)


@dataclass
class Place:
    """A store and a shared folder, and the retention over both."""

    store: Store
    shared: Path
    clock: SetClock

    def retention(
        self, *, shared_is_unreachable: bool = False, nodes: NodeParts | None = None, **days: int
    ) -> Retention:
        shared = None if shared_is_unreachable else self.shared
        return retention_of(self.store, shared, self.clock, nodes=nodes, **(DAYS | days))

    async def put(self, *tasks: Task) -> None:
        """Keep them, each with an event of its beginning and one of its end, and with output."""
        events = []
        for one in tasks:
            for at in (one.submitted_at, one.completed_at or one.submitted_at):
                events.append(TaskEvent(one.id, at, EventKind.RUNNING, 1))
        events.sort(key=lambda event: event.at)
        shown = {one.id: self.with_output(one) for one in tasks}
        await self.store.write(partial(apply_changes, changes=Changes(new_tasks=shown, events=events)))

    def with_output(self, one: Task) -> Task:
        folder = self.output(one)
        folder.mkdir(parents=True)
        (folder / "stdout.log").write_bytes(b"x" * 5000)
        return with_facts(one, stdout_path=str(folder / "stdout.log"), stdout_bytes=5000)

    def output(self, one: Task) -> Path:
        return self.shared / "logs" / str(one.id)

    async def knows(self, one: Task) -> bool:
        return await self.store.read(partial(queries.find_task, task_id=one.id)) is not None

    async def has_history(self, one: Task) -> bool:
        return bool(await self.store.read(partial(queries.task_history, task_id=one.id)))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    store = open_store(tmp_path / "host.db")
    yield Place(store, tmp_path, SetClock())
    store.close()


def counts(report: object) -> dict[LeftoverKind, int]:
    return {item.kind: item.count for item in report.items}  # type: ignore[attr-defined]


KINDS = LeftoverKind.OUTPUT, LeftoverKind.TASKS, LeftoverKind.EVENTS


async def test_it_sweeps_by_itself_and_goes_on_after_a_failure(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIRST_SWEEP_SECONDS", "SWEEP_SECONDS"):
        monkeypatch.setattr(f"kohakuriver.host.retention.retention.{name}", 0.01)
    old, newest = task(300), task(1)
    await place.put(old, newest)
    retention, failures = place.retention(), [RuntimeError("once")]
    sweep = retention.sweep

    async def fails_first() -> object:
        if failures:
            raise failures.pop()
        return await sweep()

    monkeypatch.setattr(retention, "sweep", fails_first)
    running = asyncio.create_task(retention.run())
    async with asyncio.timeout(20):
        while await place.knows(old):
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not place.output(old).exists()


async def test_each_kind_goes_when_its_time_is_over_and_a_look_removes_nothing(place: Place) -> None:
    fresh, listless, silent, gone = task(49), task(60), task(101), task(201)
    await place.put(fresh, listless, silent, gone)
    retention = place.retention()
    wanted = dict(zip(KINDS, (2, 1, 6), strict=True))
    looked = await retention.look()
    assert counts(looked) == wanted
    assert all([place.output(one).exists() and await place.knows(one) for one in (listless, silent, gone)])
    swept = await retention.sweep()
    assert (counts(swept), swept.faults) == (wanted | {LeftoverKind.EVENTS: 4}, []), (
        "two went with their task"
    )
    assert swept.items[0].size_bytes == looked.items[0].size_bytes
    assert (swept.items[0].size_bytes or 0) >= 10_000
    assert [place.output(one).exists() for one in (fresh, listless, silent, gone)] == [
        True,
        True,
        False,
        False,
    ]
    assert [await place.knows(one) for one in (fresh, listless, silent, gone)] == [True, True, True, False]
    assert [await place.has_history(one) for one in (fresh, listless, silent)] == [True, False, False]
    assert counts(await retention.sweep()) == dict.fromkeys(KINDS, 0)
    assert (retention.removed[LeftoverKind.OUTPUT], retention.removed[LeftoverKind.TASKS]) == (2, 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_to_be_kept_for_ever_is(place: Place, kind: LeftoverKind) -> None:
    old, newest = task(900), task(1)
    await place.put(old, newest)
    days: dict[str, Any] = {"output": 0, "tasks": 0, "events": 0} | {kind.value: 100}
    await place.retention(**days).sweep()
    assert await place.knows(old) is (kind is not LeftoverKind.TASKS)
    assert place.output(old).exists() is (kind is LeftoverKind.EVENTS), "output never outlives its record"
    assert await place.has_history(old) is (kind is LeftoverKind.OUTPUT)


async def test_nothing_goes_of_what_lives_or_can_begin_again(place: Place) -> None:
    ended_lately = task(10, submitted=900)
    living = [task(900 + n, state) for n, state in enumerate(S) if state not in FINAL]
    kept_vps = [vps(800 + n, state) for n, state in enumerate((S.STOPPED, S.FAILED, S.RUNNING))]
    killed = vps(700, S.KILLED)
    kept = [ended_lately, *living, *kept_vps, task(1)]
    await place.put(killed, *kept)
    await place.retention().sweep()
    assert all([await place.knows(one) and place.output(one).exists() for one in kept])
    assert all([await place.has_history(one) for one in kept])
    assert not await place.knows(killed)
    assert not place.output(killed).exists()


async def test_output_of_tasks_that_the_store_does_not_know_stays(place: Place) -> None:
    """A host that was restored from an old backup does not know what ran since, and must not delete it."""
    await place.put(task(1))
    unknown = place.output(task(500))
    unknown.mkdir(parents=True)
    for name in ("notes", "0123", "٣", "99999999999999999999999"):
        (place.shared / "logs" / name).mkdir()
    before = sorted(path.name for path in (place.shared / "logs").iterdir())
    assert counts(await place.retention().sweep())[LeftoverKind.OUTPUT] == 0
    assert sorted(path.name for path in (place.shared / "logs").iterdir()) == before


async def test_no_link_is_followed_and_the_record_stays_while_its_output_does(place: Place) -> None:
    treasure = place.shared / "treasure"
    treasure.mkdir()
    (treasure / "kept").write_text("mine")
    planted, within, newest = task(300), task(301), task(1)
    await place.put(planted, within, newest)
    place.output(planted).rename(place.shared / "moved")
    place.output(planted).symlink_to(treasure)
    (place.output(within) / "attempt-2").symlink_to(treasure)
    report = await place.retention().sweep()
    assert (treasure / "kept").read_text() == "mine"
    assert await place.knows(planted)
    assert any(str(planted.id) in sentence for _, sentence in report.faults)
    assert not place.output(within).exists()
    assert not await place.knows(within)


async def test_records_stay_while_shared_storage_is_unreachable(place: Place) -> None:
    old, silent, newest = task(300), task(301), task(1)
    await place.put(old, newest)
    await place.store.write(partial(apply_changes, changes=Changes(new_tasks={silent.id: silent})))
    report = await place.retention(shared_is_unreachable=True).sweep()
    assert "shared storage" in report.faults[0][1]
    assert (await place.knows(old), place.output(old).exists()) == (True, True)
    assert not await place.knows(silent), "it never wrote there"


async def test_a_clock_that_is_set_forward_removes_nothing(place: Place) -> None:
    one, newest = task(30), task(1)
    await place.put(one, newest)
    retention = place.retention()
    place.clock.jump(timedelta(days=3650))
    assert counts(await retention.sweep()) == dict.fromkeys(KINDS, 0)
    place.clock.jump(timedelta(days=-3650))
    place.clock.wait(timedelta(days=400))
    assert counts(await retention.sweep())[LeftoverKind.TASKS] == 1


async def test_numbers_that_were_given_are_not_given_again(place: Place) -> None:
    """The newest record and the newest event stay, whatever their age: what comes is numbered after them."""
    await place.put(task(400), task(399))
    ids = (
        await place.store.read(queries.newest_id),
        await place.store.read(queries.newest_event),
    )
    await place.retention().sweep()
    assert await place.store.read(queries.newest_id) == ids[0]
    assert await place.store.read(queries.newest_event) == ids[1]


async def test_a_batch_keeps_its_spec_until_its_last_task_goes(place: Place, tmp_path: Path) -> None:
    def specs() -> int:
        with sqlite3.connect(tmp_path / "host.db") as connection:
            return int(connection.execute("SELECT COUNT(*) FROM task_specs").fetchone()[0])

    batch = id_of(500)
    spec = TaskSpec("true", env_vars=LARGE)
    made = [task(400, submitted=500), task(150, submitted=500), task(1)]
    made[:2] = [
        changed(one, id=TaskId(batch + 1 + n), spec=spec, batch_id=batch) for n, one in enumerate(made[:2])
    ]
    await place.put(*made)
    await place.retention().sweep()
    assert (await place.knows(made[0]), specs()) == (False, 1)
    left = await place.store.read(partial(queries.find_task, task_id=made[1].id))
    assert left is not None
    assert left.spec.env_vars == LARGE
    place.clock.wait(timedelta(days=100))
    await place.retention().sweep()
    assert (await place.knows(made[1]), specs()) == (False, 0)


async def test_a_node_that_tells_of_a_task_whose_record_is_gone_changes_nothing(tmp_path: Path) -> None:
    async with control_room(tmp_path) as room:
        await room.join()
        gone, newest = await room.submit(), await room.submit()
        await room.accept_orders()
        await room.report(gone, S.RUNNING, 1)
        await room.report(gone, S.COMPLETED, 2, exit_code=0)
        clock = SetClock()
        clock.day = datetime.now(UTC) + timedelta(days=400)
        await retention_of(room.store, tmp_path, clock, tasks=300).sweep()
        listed = await room.control.tasks.select(queries.TaskFilter())
        assert [one.id for one in listed] == [newest]
        await room.report(gone, S.FAILED, 3, exit_code=1)
        listed = await room.control.tasks.select(queries.TaskFilter())
        assert [one.id for one in listed] == [newest]
        running = AttemptState(task_id=str(gone), attempt=1, status=S.RUNNING, revision=4)
        assert [end.task_id for end in await room.beat(attempts=[running])] == [str(gone)]
        ended = AttemptState(task_id=str(gone), attempt=1, status=S.COMPLETED, revision=4)
        assert await room.beat(attempts=[ended]) == []


def test_operators_look_and_remove_and_others_do_neither(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        for method in ("GET", "POST"):
            assert (await harness.call("ursula", method, "/api/prune")).status_code == 403
            answer = await harness.call("otto", method, "/api/prune")
            assert answer.status_code == 200
            assert {item["kind"] for item in answer.json()["items"]} == {kind.value for kind in KINDS}
            assert answer.json()["faults"] == []
        metrics = (await harness.call("vera", "GET", "/metrics")).text
        assert 'kohakuriver_leftovers_removed_total{kind="output"} 0.0' in metrics

    play(tmp_path, scenario)


async def test_output_that_was_removed_is_told_from_a_task_that_wrote_nothing(place: Place) -> None:
    wrote, runs = task(300), task(1, S.RUNNING)
    silent = task(299, stdout_bytes=0)
    reader = OutputReader(place.shared, StandInLogs())
    try:
        for one, size_bytes in ((wrote, None), (silent, 0), (runs, 0)):
            written = place.with_output(one)
            (place.output(one) / "stdout.log").unlink()
            shown = written if one is wrote else with_facts(written, stdout_bytes=one.attempt.stdout_bytes)
            source = reader.source_of(with_facts(shown, number=1, end=S.COMPLETED), Stream.STDOUT)
            if size_bytes is None:
                with pytest.raises(NotFound, match="KEEP_OUTPUT_DAYS"):
                    await source.size()
            else:
                assert await source.size() == size_bytes
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("own", "tasks", "counted"), [(30, 365, 30), (400, 365, 365), (0, 365, 365), (30, 0, 30), (0, 0, 0)]
)
def test_what_nodes_keep_goes_before_the_record_that_tells_of_it(own: int, tasks: int, counted: int) -> None:
    rules = RetentionRules(tasks=tasks, snapshots=own, output=own)
    assert rules.days_on_nodes(LeftoverKind.SNAPSHOTS) == counted
    assert rules.days_on_nodes(LeftoverKind.OUTPUT) == counted
