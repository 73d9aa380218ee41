"""Whether an order is obeyed, judged on what the runner holds. Pure: the caller writes records and acts."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.ids import parse_task_id
from kohakuriver.runner.agent.book import Attempt, Book, Key
from kohakuriver.runner.agent.records import Accepted, KillAsked, Record, Reported, StopAsked
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.wire.messages import Order, TaskReport

UNWANTED_GRACE_SECONDS = 5
"""What is given to work that must not be there any more: another attempt may wait for it to be gone."""
LAST_REVISION = 1 << 30
"""Revision of the only report of an attempt that the journal does not know: above any that were sent before a
journal was lost."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`refusal` None: obeyed. `begins`: the attempt that is new; `ends`: attempts that are to end; `stops`:
    the VPS that is to end in order."""

    records: tuple[Record, ...] = ()
    refusal: str | None = None
    begins: Key | None = None
    ends: tuple[Key, ...] = ()
    stops: Key | None = None


def judge_execute(order: Order, book: Book, make_spec: Callable[[Order], WorkloadSpec]) -> Verdict:
    """A repeated order is obeyed by doing nothing; an older attempt is refused, a newer ends the old ones."""
    try:
        key = (parse_task_id(order.task_id), order.attempt)
        newest = book.newest_number(key[0])
        if order.attempt == newest:
            return Verdict()
        if order.attempt < newest:
            return Verdict(refusal=f"attempt {order.attempt} is old; attempt {newest} of this task came here")
        if newest == 0 and 0 < order.order_id <= book.forgotten_up_to:
            return Verdict(
                refusal="this order is older than work that was done here long ago; it came before"
            )
        spec = make_spec(order)
    except InvalidInput as error:
        return Verdict(refusal=str(error))
    older = tuple(held.key for held in book.older_than(key) if not held.ended)
    return Verdict(
        records=(Accepted(spec, order.order_id), *(KillAsked(*old, UNWANTED_GRACE_SECONDS) for old in older)),
        begins=key,
        ends=older,
    )


def judge_kill(order: Order, book: Book, now: datetime) -> Verdict:
    """An attempt that is not here is remembered as killed, so that a late execute order starts nothing."""
    try:
        key = (parse_task_id(order.task_id), order.attempt)
    except InvalidInput as error:
        return Verdict(refusal=str(error))
    attempt = book.get(key)
    if attempt is not None and not attempt.ended:
        return Verdict(records=(KillAsked(*key, order.grace_seconds),), ends=(key,))
    if attempt is not None or key[1] <= book.newest_number(key[0]):
        return Verdict()
    report = TaskReport(
        task_id=str(key[0]),
        status=TaskState.KILLED,
        attempt=key[1],
        revision=LAST_REVISION,
        message="killed; its runner had no record of it",
        completed_at=now,
    )
    return Verdict(records=(Reported(report),), ends=(key,))


def kill_of_unwanted(key: Key) -> Order:
    """The order to end an attempt that the host does not want."""
    task_id, number = key
    return Order(
        kind=OrderKind.KILL, task_id=str(task_id), attempt=number, grace_seconds=UNWANTED_GRACE_SECONDS
    )


def judge_stop(order: Order, book: Book) -> Verdict:
    """A VPS that has ended, or is being stopped or killed, needs nothing more."""
    try:
        attempt = book.get((parse_task_id(order.task_id), order.attempt))
    except InvalidInput as error:
        return Verdict(refusal=str(error))
    if attempt is None:
        return Verdict(refusal=f"this node does not run attempt {order.attempt} of VPS {order.task_id}")
    if attempt.spec is None or attempt.spec.session is None:
        return Verdict(refusal=f"task {order.task_id} is no VPS; kill it")
    if attempt.ended or attempt.kill_asked or attempt.stop_asked:
        return Verdict()
    return Verdict(records=(StopAsked(*attempt.key, order.protected_snapshot),), stops=attempt.key)


def refusal_to_steer(order: Order, attempt: Attempt | None) -> str | None:
    """Why an order to pause or resume cannot be obeyed; None if it can."""
    if attempt is None or attempt.ended:
        return f"this node does not run attempt {order.attempt} of task {order.task_id}"
    if attempt.last is None:
        return f"task {order.task_id} is not running yet"
    return None
