"""The judge of campaigns: a good record passes, and each broken promise is seen."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fault.campaign_checks import summary, violations
from fault.campaign_record import CampaignRecord, HistoryEvent, SeenTask
from fault.clients import Outcome, Submission
from fault.schedule import Fault, FaultKind, make_schedule
from fault.workload import (
    END,
    START,
    Stream,
    TraceLine,
    Work,
    WorkKind,
    expected_output,
    make_works,
    parse_trace,
    submission,
)

COUNTER = Work("w-0", WorkKind.COUNTER, lines=3, cores=2)
FAILING = Work("w-1", WorkKind.FAILING, lines=2, exit_code=3)
KILLED = Work("w-2", WorkKind.KILLED, lines=9, kill_after=1.0)


def _task(task_id: str, work: Work, status: str, exit_code: int | None) -> SeenTask:
    return SeenTask(
        task_id=task_id,
        name=work.name,
        status=status,
        attempt=1,
        exit_code=exit_code,
        error_message=None,
        assigned_node="n1",
        stdout=expected_output(work, "out", 1),
        stderr=expected_output(work, "err", 1),
        history=(
            HistoryEvent("submitted", 0),
            HistoryEvent("assigning", 1),
            HistoryEvent("running", 1),
            HistoryEvent(status, 1),
        ),
    )


def _marks(task_id: str, begins: float, ends: float | None) -> list[TraceLine]:
    start = TraceLine(task_id, 1, START, "n1", begins)
    return [start] if ends is None else [start, TraceLine(task_id, 1, END, "n1", ends)]


GOOD = CampaignRecord(
    seed=1,
    seconds=60,
    cores=2,
    schedule=make_schedule(1, 60, ["n1"], [FaultKind.CUT]),
    submissions=(
        Submission("w-0", COUNTER, Outcome.ACCEPTED, "10"),
        Submission("w-1", FAILING, Outcome.ACCEPTED, "11"),
        Submission("w-2", KILLED, Outcome.ACCEPTED, "12"),
        Submission("w-3", COUNTER, Outcome.UNANSWERED),
        Submission("w-4", COUNTER, Outcome.REFUSED),
    ),
    tasks=(
        _task("10", COUNTER, "completed", 0),
        _task("11", FAILING, "failed", 3),
        replace(_task("12", KILLED, "killed", 137), stdout="out 1 1\nou"),
    ),
    trace=(*_marks("10", 1.0, 2.0), *_marks("11", 2.0, 3.0), *_marks("12", 3.0, None)),
    kill_asked=frozenset({"12"}),
)


def _with_task(number: int, **changes: object) -> CampaignRecord:
    tasks = list(GOOD.tasks)
    tasks[number] = replace(tasks[number], **changes)  # type: ignore[arg-type]
    return replace(GOOD, tasks=tuple(tasks))


def _with_marks(*more: TraceLine) -> CampaignRecord:
    return replace(GOOD, trace=(*GOOD.trace, *more))


def test_a_good_record_passes_and_can_be_written(tmp_path: Path) -> None:
    assert violations(GOOD) == []
    GOOD.write(tmp_path / "record.json")
    assert "1 failed" in summary(GOOD, [])


def test_a_task_of_an_unanswered_submission_may_exist_but_must_not_be_half() -> None:
    whole = _task("13", replace(COUNTER, name="w-3"), "completed", 0)
    record = replace(_with_marks(*_marks("13", 9.0, 9.5)), tasks=(*GOOD.tasks, whole))
    assert violations(record) == []
    half = replace(record, tasks=(*GOOD.tasks, replace(whole, status="pending")))
    assert any("has not ended" in sentence for sentence in violations(half))


def test_what_an_engine_lost_is_no_broken_promise_where_it_went_away_and_no_retry_was_asked_for() -> None:
    said = "the Docker engine was restarted and does not know how it ended"
    lost = _with_task(0, status="failed", exit_code=255, error_message=said, stdout="out 1 1\n", history=())
    assert violations(lost)
    engine = Fault(FaultKind.KILL_DOCKERD, "n1", 1.0, 2.0)
    assert violations(replace(lost, schedule=(engine,))) == []
    wanted = replace(GOOD.submissions[0], work=replace(COUNTER, retries=1))
    retried = replace(lost, schedule=(engine,), submissions=(wanted, *GOOD.submissions[1:]))
    assert any("exit status 255, not 0" in sentence for sentence in violations(retried))


BROKEN: dict[str, Callable[[], CampaignRecord]] = {
    "is gone": lambda: replace(GOOD, tasks=GOOD.tasks[1:]),
    "was refused and is there": lambda: replace(
        GOOD, tasks=(*GOOD.tasks, replace(GOOD.tasks[0], task_id="14", name="w-4"))
    ),
    "is there 2 times": lambda: replace(GOOD, tasks=(*GOOD.tasks, replace(GOOD.tasks[0], task_id="15"))),
    "has not ended": lambda: _with_task(0, status="lost"),
    "exit status None, not 0": lambda: _with_task(0, status="failed", exit_code=None),
    "exit status 0, not 3": lambda: _with_task(1, status="completed", exit_code=0),
    "nobody asked for it": lambda: _with_task(0, status="killed"),
    "wrote start 2 times": lambda: _with_marks(GOOD.trace[0]),
    "ended and never began": lambda: _with_marks(TraceLine("12", 2, END, "n1", 4.0)),
    "a line that nobody wrote": lambda: replace(GOOD, odd_trace=("10 1 sta",)),
    "the host knows 1": lambda: _with_marks(TraceLine("10", 2, START, "n1", 9.0)),
    "the host knows 0": lambda: _with_marks(TraceLine("99", 1, START, "n1", 9.0)),
    "wrote no end": lambda: replace(GOOD, trace=(GOOD.trace[0], *GOOD.trace[2:])),
    "it ran on n1": lambda: _with_task(0, assigned_node="n2"),
    "its out is not what it wrote": lambda: _with_task(0, stdout="out 1 1\nout 1 2\n"),
    "its err is not what it wrote": lambda: _with_task(1, stderr="err 1 1\nerr 1 1\n"),
    "the first other at 8": lambda: _with_task(2, stdout="out 1 1\nXut 1 2\n"),
    "bytes of out were reported": lambda: _with_task(0, stdout_bytes=5),
    "ran 3 cores' work": lambda: replace(
        GOOD, trace=(*_marks("10", 1.0, 2.0), *_marks("11", 1.5, 3.0), *_marks("12", 3.0, None))
    ),
    "was completed and then running": lambda: _with_task(
        0, history=(*GOOD.tasks[0].history, HistoryEvent("running", 1))
    ),
    "was placed as [1, 3]": lambda: _with_task(
        0, history=(HistoryEvent("assigning", 1), HistoryEvent("assigning", 3))
    ),
    "still has": lambda: replace(GOOD, leftovers={"n1": ["a container"]}),
    "are still given out": lambda: replace(GOOD, busy_cores={"n1": 1}),
    "node n1 is offline": lambda: replace(GOOD, unhealed=("node n1 is offline",)),
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_a_broken_promise_is_seen(sentence: str) -> None:
    assert any(sentence in each for each in violations(BROKEN[sentence]()))


def test_the_same_seed_gives_the_same_tasks_of_all_kinds() -> None:
    stream = Stream(100, 54.0, ("n1", "n2"), 2)
    works = make_works(7, stream)
    assert works == make_works(7, stream)
    assert {work.kind for work in works} == set(WorkKind)
    assert {work.cores for work in works} == {0, 1, 2}
    assert {bool(work.retries) for work in works} == {bool(work.target) for work in works} == {True, False}
    assert all(0 <= work.at <= 54 for work in works)
    assert len({work.name for work in works}) == 100
    assert submission(works[0], "/shared/x")["name"] == works[0].name


def test_a_torn_line_of_the_shared_file_is_reported() -> None:
    lines, odd = parse_trace("10 1 start n1 12.50\n10 1 en\n")
    assert lines == [TraceLine("10", 1, START, "n1", 12.5)]
    assert odd == ["10 1 en"]
