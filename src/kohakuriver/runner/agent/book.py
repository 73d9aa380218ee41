"""What the runner holds: every attempt that is not done, as the journal's records tell. Pure.

`apply` is the only way in which it changes, so that replaying the journal gives the same book. An attempt is
done when its last report is committed by the host and the engine holds nothing of it. Then only its number is
kept, for the `KEPT_CLOSED` tasks that were closed last, and of all before them the highest number of an
order, so that a late or repeated order starts nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from kohakuriver.models.enums import TaskState
from kohakuriver.models.ids import TaskId
from kohakuriver.models.transitions import ENDED
from kohakuriver.runner.agent.records import (
    AboutAttempt,
    Accepted,
    Closed,
    Committed,
    Forgotten,
    InputGiven,
    KillAsked,
    Record,
    Removed,
    Reported,
    Starting,
    Steered,
    StopAsked,
    StopGivenUp,
    Withdrawn,
    key_of,
)
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.wire.messages import TaskReport

KEPT_CLOSED = 20_000

Key = tuple[TaskId, int]


@dataclass(slots=True)
class Attempt:
    """One attempt. `spec` None: it was killed before its execute order came, and never will be begun.

    `unsent`: reports that the host has not committed, oldest first. `last`: the newest report.
    """

    task_id: TaskId
    number: int
    spec: WorkloadSpec | None = None
    order_id: int = 0
    starting: bool = False
    image_digest: str | None = None
    kill_asked: bool = False
    kill_grace: int | None = None
    stop_asked: bool = False
    protected_snapshot: int | None = None
    steered_by: int = 0
    input_given: bool = False
    last: TaskReport | None = None
    unsent: list[TaskReport] = field(default_factory=list)
    removed: bool = False

    @property
    def key(self) -> Key:
        return self.task_id, self.number

    @property
    def status(self) -> TaskState:
        return TaskState.ASSIGNING if self.last is None else self.last.status

    @property
    def revision(self) -> int:
        return 0 if self.last is None else self.last.revision

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def done(self) -> bool:
        return self.ended and self.removed and not self.unsent


class Book:
    """All attempts, by task and number."""

    def __init__(self) -> None:
        self._attempts: dict[Key, Attempt] = {}
        self._numbers: dict[TaskId, set[int]] = {}
        self._closed: dict[TaskId, Closed] = {}
        self.forgotten_up_to = 0
        """Orders with numbers up to this one, for tasks that are not known, were obeyed long ago."""

    def __iter__(self) -> Iterator[Attempt]:
        return iter(tuple(self._attempts.values()))

    def get(self, key: Key) -> Attempt | None:
        return self._attempts.get(key)

    def newest_number(self, task_id: TaskId) -> int:
        """The highest attempt of the task that was ever seen here, as far as it is remembered; 0: none."""
        closed = self._closed.get(task_id)
        return max(*self._numbers.get(task_id, ()), closed.attempt if closed else 0, 0)

    def older_than(self, key: Key) -> list[Attempt]:
        """Older attempts of the same task that are still held."""
        older = sorted(number for number in self._numbers.get(key[0], ()) if number < key[1])
        return [self._attempts[key[0], number] for number in older]

    def apply(self, record: Record) -> None:
        """Take in one fact. A fact about an attempt that is done already changes nothing."""
        if isinstance(record, Forgotten):
            self.forgotten_up_to = max(self.forgotten_up_to, record.order_id)
            return
        key = key_of(record)
        if isinstance(record, Closed):
            self._close(record)
            return
        attempt = self._attempts.get(key) or self._open(record)
        if attempt is None:
            return
        _change(attempt, record)
        if attempt.done or isinstance(record, Withdrawn):
            self._drop(key)
        if attempt.done:
            self._close(Closed(*key, attempt.order_id))

    def records(self) -> list[Record]:
        """The shortest row of records that gives this book again."""
        records: list[Record] = [Forgotten(self.forgotten_up_to)] if self.forgotten_up_to else []
        records.extend(self._closed.values())
        for attempt in self._attempts.values():
            records.extend(_records_of(attempt))
        return records

    def _open(self, record: AboutAttempt) -> Attempt | None:
        task_id, number = key_of(record)
        if isinstance(record, Accepted):
            attempt = Attempt(task_id, number, record.spec, record.order_id)
        elif isinstance(record, Reported) and record.report.status in ENDED:
            attempt = Attempt(task_id, number, removed=True)
        else:
            return None
        self._attempts[attempt.key] = attempt
        self._numbers.setdefault(task_id, set()).add(number)
        return attempt

    def _drop(self, key: Key) -> None:
        del self._attempts[key]
        numbers = self._numbers[key[0]]
        numbers.discard(key[1])
        if not numbers:
            del self._numbers[key[0]]

    def _close(self, closed: Closed) -> None:
        task_id = TaskId(closed.task_id)
        before = self._closed.pop(task_id, closed)
        self._closed[task_id] = max(before, closed, key=lambda record: record.attempt)
        while len(self._closed) > KEPT_CLOSED:
            oldest = self._closed.pop(next(iter(self._closed)))
            self.forgotten_up_to = max(self.forgotten_up_to, oldest.order_id)


def _change(attempt: Attempt, record: Record) -> None:
    match record:
        case Starting(image_digest=image_digest):
            attempt.starting, attempt.image_digest = True, image_digest
        case KillAsked(grace_seconds=grace):
            attempt.kill_asked, attempt.kill_grace = True, grace
        case StopAsked(protected=protected):
            attempt.stop_asked, attempt.protected_snapshot = True, protected
        case StopGivenUp():
            attempt.stop_asked = False
        case InputGiven():
            attempt.input_given = True
        case Steered(order_id=order_id):
            attempt.steered_by = order_id
        case Reported(report=report) if _is_news(attempt, report):
            attempt.last = report
            attempt.unsent.append(report)
        case Committed(revision=revision):
            attempt.unsent = [report for report in attempt.unsent if report.revision > revision]
        case Removed():
            attempt.removed = True


def _is_news(attempt: Attempt, report: TaskReport) -> bool:
    """An attempt that has ended stays ended, whatever comes after."""
    return report.revision > attempt.revision and (report.status in ENDED or not attempt.ended)


def _records_of(attempt: Attempt) -> Iterator[Record]:
    """The first of the records is one that opens the attempt."""
    task_id, number = attempt.key
    if attempt.spec is not None:
        yield Accepted(attempt.spec, attempt.order_id)
    if attempt.last is not None and not attempt.unsent:
        yield Reported(attempt.last)
        yield Committed(task_id, number, attempt.last.revision)
    yield from (Reported(report) for report in attempt.unsent)
    if attempt.starting:
        yield Starting(task_id, number, attempt.image_digest)
    if attempt.kill_asked:
        yield KillAsked(task_id, number, attempt.kill_grace)
    if attempt.stop_asked:
        yield StopAsked(task_id, number, attempt.protected_snapshot)
    if attempt.input_given:
        yield InputGiven(task_id, number)
    if attempt.steered_by:
        yield Steered(task_id, number, attempt.steered_by)
    if attempt.removed and attempt.spec is not None:
        yield Removed(task_id, number)
