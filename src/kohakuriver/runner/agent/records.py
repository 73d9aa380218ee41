"""What the journal says, record by record, and how a record becomes bytes.

Records are small facts about one attempt. Their order in the journal is the order in which they were decided;
`agent.book` turns a row of them into what the runner holds.
"""

from pathlib import Path
from typing import Any

import msgspec

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.spec import ContainerBody, WorkloadSpec
from kohakuriver.wire.messages import TaskReport


class _Record(msgspec.Struct, frozen=True, array_like=True, tag_field="kind"):
    """Base: written as an array, its tag first. A field is only ever added at the end, with a default."""


class Accepted(_Record, tag="accepted", frozen=True):
    """An execute order was taken in. The spec is complete: nothing is decided anew after a restart."""

    spec: WorkloadSpec
    order_id: int


class Starting(_Record, tag="starting", frozen=True):
    """From here on the command may have been started; it must not be begun again."""

    task_id: int
    attempt: int
    image_digest: str | None = None


class KillAsked(_Record, tag="kill", frozen=True):
    """The attempt is to end, and its end is to count as a kill.

    `grace_seconds`: between SIGTERM and SIGKILL; None: as its spec says.
    """

    task_id: int
    attempt: int
    grace_seconds: int | None = None


class StopAsked(_Record, tag="stop", frozen=True):
    """A VPS is to be stopped in order: with a snapshot first, where the settings have it.

    `protected`: the older snapshot that must not give way to it.
    """

    task_id: int
    attempt: int
    protected: int | None = None


class StopGivenUp(_Record, tag="stop_given_up", frozen=True):
    """The VPS goes on, since what was to be kept of it could not be kept."""

    task_id: int
    attempt: int


class InputGiven(_Record, tag="input", frozen=True):
    """All of the attempt's standard input is with its engine."""

    task_id: int
    attempt: int


class Steered(_Record, tag="steered", frozen=True):
    """The last order to pause or resume that was obeyed; older ones are void."""

    task_id: int
    attempt: int
    order_id: int


class Reported(_Record, tag="report", frozen=True):
    """A report for the host. For an attempt that is not held: a kill came before its execute order."""

    report: TaskReport


class Committed(_Record, tag="committed", frozen=True):
    """The host has every report of the attempt up to this revision in its store."""

    task_id: int
    attempt: int
    revision: int


class Removed(_Record, tag="removed", frozen=True):
    """The engine holds nothing of the attempt any more."""

    task_id: int
    attempt: int


class Closed(_Record, tag="closed", frozen=True):
    """All is done for the task up to this attempt; neither it nor an older one is ever begun again.

    `order_id`: the order that began the attempt.
    """

    task_id: int
    attempt: int
    order_id: int = 0


class Forgotten(_Record, tag="forgotten", frozen=True):
    """Nothing is known any more of tasks whose orders had numbers up to this one, and which are not held."""

    order_id: int


class Withdrawn(_Record, tag="withdrawn", frozen=True):
    """The attempt was refused after all, since its acceptance may not have become durable."""

    task_id: int
    attempt: int


AboutAttempt = (
    Withdrawn
    | Accepted
    | Starting
    | KillAsked
    | StopAsked
    | StopGivenUp
    | InputGiven
    | Steered
    | Reported
    | Committed
    | Removed
    | Closed
)
Record = AboutAttempt | Forgotten


def encode_record(record: Record) -> bytes:
    return _ENCODER.encode(record)


def decode_record(data: bytes) -> Record:
    """Read a record; raises InvalidInput for one that this version does not know."""
    try:
        try:
            return _DECODER.decode(data)
        except msgspec.ValidationError:
            return _DECODER.decode(_with_a_body(data))
    except msgspec.MsgspecError as error:
        raise InvalidInput(
            f"the journal holds a record that this version cannot read ({error}); a newer version wrote it: "
            "start that one, which takes the work up again"
        ) from error


def _with_a_body(data: bytes) -> bytes:
    """An accepted order as this version writes it; earlier ones had the fields in the spec."""
    match msgspec.msgpack.decode(data):
        case ["accepted", dict() as spec, *rest] if "body" not in spec:
            fields = {name: spec.pop(name) for name in ContainerBody.__struct_fields__ if name in spec}
            body = {"type": ContainerBody.__struct_config__.tag, **fields}
            return msgspec.msgpack.encode(["accepted", {**spec, "body": body}, *rest])
    return data


def key_of(record: AboutAttempt) -> tuple[TaskId, int]:
    """The attempt that a record is about."""
    if isinstance(record, Accepted):
        return record.spec.task_id, record.spec.attempt
    if isinstance(record, Reported):
        return TaskId(int(record.report.task_id)), record.report.attempt
    return TaskId(record.task_id), record.attempt


def _to_builtin(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value)} has no place in the journal")


def _from_builtin(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(f"{kind} has no place in the journal")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_to_builtin)
_DECODER: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record, dec_hook=_from_builtin)
