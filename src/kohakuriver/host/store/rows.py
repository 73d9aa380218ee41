"""Rows to models and back; the only place that knows both."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import structlog

from kohakuriver.host.store.records import (
    EnrolmentRow,
    JoinTokenRow,
    NodeRow,
    OrderRow,
    RegistryCredentialRow,
    StoredEvent,
    TaskEvent,
    TokenRow,
    UserRow,
    VpsAssignment,
)
from kohakuriver.host.store.specs import KeptSpec
from kohakuriver.models.attempts import NEVER_PLACED, Attempt
from kohakuriver.models.enums import OrderKind, Role, TaskState
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.transitions import ENDED
from kohakuriver.models.vps import VpsState
from kohakuriver.wire.messages import Registration

log = structlog.get_logger()


class _KeptAddress(msgspec.Struct):
    """Of the newest attempt of a VPS, in the column of what a VPS has beside its state."""

    address: str | None = None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_vps_decoder = msgspec.json.Decoder(VpsState)
_address_decoder = msgspec.json.Decoder(_KeptAddress)
_registration_decoder = msgspec.json.Decoder(Registration)
_faults_decoder = msgspec.json.Decoder(tuple[str, ...])
_encoder = msgspec.json.Encoder()

Row = Mapping[str, Any]


def to_micros(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int | None) -> datetime | None:
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def mutable_task_row(task: Task) -> dict[str, Any]:
    """The columns of a task that change after submission; `row_id` names the row."""
    attempt = task.attempt
    return {
        "row_id": task.id,
        "state": task.state.value,
        "attempt": attempt.number,
        "revision": attempt.revision,
        "assigned_node": attempt.node,
        "kill_requested": task.kill_requested,
        "exit_code": attempt.exit_code,
        "error_message": task.error_message,
        "decided_by": task.decided_by,
        "started_at": to_micros(attempt.started_at),
        "completed_at": to_micros(task.completed_at),
        "stdout_path": attempt.stdout_path,
        "stderr_path": attempt.stderr_path,
        "stdout_bytes": attempt.stdout_bytes,
        "stderr_bytes": attempt.stderr_bytes,
        "retries_used": task.retries_used,
        "move_requested": task.move_requested,
        "left_node": task.previous_node,
        "session": _vps_text(task),
        "image_digest": attempt.image_digest,
    }


def task_row(task: Task, kept: KeptSpec) -> dict[str, Any]:
    row = mutable_task_row(task)
    row["id"] = row.pop("row_id")
    row |= {
        "spec": kept.spec,
        "spec_id": kept.spec_id,
        "name": task.spec.name,
        "task_type": task.spec.task_type.value,
        "owner": task.owner,
        "batch_id": task.batch_id,
        "submitted_at": to_micros(task.submitted_at),
    }
    return row


def _vps_text(task: Task) -> bytes | None:
    """The column also has the address of the newest attempt: one object of both parts."""
    if task.vps_state is None:
        return None
    address = _encoder.encode(_KeptAddress(task.attempt.address))
    return address[:-1] + b"," + _encoder.encode(task.vps_state)[1:]


def task_of(row: Any, spec: TaskSpec) -> Task:
    """Read a row of `tables.tasks` with all its columns; `spec` is what `SpecReader` makes of it."""
    state = TaskState(row.state)
    return Task(
        id=TaskId(row.id),
        spec=spec,
        state=state,
        owner=row.owner,
        submitted_at=_moment(row.submitted_at),
        batch_id=row.batch_id,
        attempt=_newest_attempt(row, state) if row.attempt else NEVER_PLACED,
        kill_requested=bool(row.kill_requested),
        error_message=row.error_message,
        decided_by=row.decided_by,
        completed_at=from_micros(row.completed_at),
        retries_used=row.retries_used,
        move_requested=bool(row.move_requested),
        previous_node=row.left_node,
        vps_state=None if row.session is None else _vps_decoder.decode(row.session),
    )


def _newest_attempt(row: Any, state: TaskState) -> Attempt:
    """Without a node it is what is left of one from which the task went back to the queue."""
    ended = row.assigned_node is not None and state in ENDED
    return Attempt(
        number=row.attempt,
        node=row.assigned_node,
        revision=row.revision,
        started_at=from_micros(row.started_at),
        completed_at=from_micros(row.completed_at) if ended else None,
        stdout_path=row.stdout_path,
        stderr_path=row.stderr_path,
        stdout_bytes=row.stdout_bytes,
        stderr_bytes=row.stderr_bytes,
        exit_code=row.exit_code,
        image_digest=row.image_digest,
        address=None if row.session is None else _address_decoder.decode(row.session).address,
        end=state if ended else None,
        message=row.error_message if ended else None,
    )


def attempt_row(task_id: TaskId, attempt: Attempt) -> dict[str, Any]:
    """The row of an attempt that is over."""
    return {
        "task_id": task_id,
        "number": attempt.number,
        "node": attempt.node,
        "revision": attempt.revision,
        "started_at": to_micros(attempt.started_at),
        "completed_at": to_micros(attempt.completed_at),
        "stdout_path": attempt.stdout_path,
        "stderr_path": attempt.stderr_path,
        "stdout_bytes": attempt.stdout_bytes,
        "stderr_bytes": attempt.stderr_bytes,
        "exit_code": attempt.exit_code,
        "image_digest": attempt.image_digest,
        "address": attempt.address,
        "end": attempt.end,
        "message": attempt.message,
    }


def attempt_of(row: Any) -> Attempt:
    """Read a row of `tables.attempts`."""
    return Attempt(
        number=row.number,
        node=row.node,
        revision=row.revision,
        started_at=from_micros(row.started_at),
        completed_at=from_micros(row.completed_at),
        stdout_path=row.stdout_path,
        stderr_path=row.stderr_path,
        stdout_bytes=row.stdout_bytes,
        stderr_bytes=row.stderr_bytes,
        exit_code=row.exit_code,
        image_digest=row.image_digest,
        address=row.address,
        end=TaskState(row.end),
        message=row.message,
    )


def event_row(event: TaskEvent) -> dict[str, Any]:
    return {
        "task_id": event.task_id,
        "at": to_micros(event.at),
        "kind": event.kind.value,
        "attempt": event.attempt,
        "detail": event.detail,
    }


def event_of(row: Any) -> StoredEvent:
    return StoredEvent(TaskId(row.task_id), _moment(row.at), row.kind, row.attempt, row.detail)


def order_row(order: OrderRow) -> dict[str, Any]:
    return {
        "id": order.id,
        "node": order.node,
        "task_id": order.task_id,
        "attempt": order.attempt,
        "kind": order.kind.value,
        "created_at": to_micros(order.created_at),
    }


def order_of(row: Any) -> OrderRow:
    return OrderRow(
        row.id, row.node, TaskId(row.task_id), row.attempt, OrderKind(row.kind), _moment(row.created_at)
    )


def node_row(node: NodeRow) -> dict[str, Any]:
    return {
        "hostname": node.hostname,
        "public_key": node.public_key,
        "approved_by": node.approved_by,
        "approved_at": to_micros(node.approved_at),
        "registration": None if node.registration is None else _encoder.encode(node.registration),
        "address": node.address,
        "faults": _encoder.encode(node.faults),
        "draining": node.draining,
    }


def node_of(row: Any) -> NodeRow:
    return NodeRow(
        hostname=row.hostname,
        public_key=row.public_key,
        approved_by=row.approved_by,
        approved_at=_moment(row.approved_at),
        registration=_registration_of(row),
        address=row.address,
        faults=_faults_decoder.decode(row.faults),
        draining=bool(row.draining),
    )


def _registration_of(row: Any) -> Registration | None:
    """None as well for one that this version does not take: the node is asked for another when it beats."""
    if row.registration is None:
        return None
    try:
        return _registration_decoder.decode(row.registration)
    except (msgspec.DecodeError, ValueError, RecursionError, OverflowError) as error:
        log.warning("stored_registration_void", node=row.hostname, reason=str(error)[:300])
        return None


def enrolment_row(enrolment: EnrolmentRow) -> dict[str, Any]:
    return {
        "fingerprint": enrolment.fingerprint,
        "hostname": enrolment.hostname,
        "public_key": enrolment.public_key,
        "first_seen": to_micros(enrolment.first_seen),
    }


def enrolment_of(row: Any) -> EnrolmentRow:
    return EnrolmentRow(row.fingerprint, row.hostname, row.public_key, _moment(row.first_seen))


def join_token_row(token: JoinTokenRow) -> dict[str, Any]:
    return {
        "id": token.id,
        "secret": token.secret,
        "created_by": token.created_by,
        "created_at": to_micros(token.created_at),
        "expires_at": to_micros(token.expires_at),
        "used_by_key": token.used_by_key,
    }


def join_token_of(row: Any) -> JoinTokenRow:
    return JoinTokenRow(
        row.id,
        row.secret,
        row.created_by,
        _moment(row.created_at),
        _moment(row.expires_at),
        row.used_by_key,
    )


def user_row(user: UserRow) -> dict[str, Any]:
    return {
        "name": user.name,
        "role": user.role.name.lower(),
        "active": user.active,
        "created_at": to_micros(user.created_at),
        "number": user.number,
    }


def user_of(row: Any) -> UserRow:
    return UserRow(row.name, Role[row.role.upper()], bool(row.active), _moment(row.created_at), row.number)


def token_row(token: TokenRow) -> dict[str, Any]:
    return {
        "id": token.id,
        "user_name": token.user_name,
        "name": token.name,
        "role": token.role.name.lower(),
        "hash": token.hash,
        "created_at": to_micros(token.created_at),
        "parent_id": token.parent_id,
        "number": token.number,
        "last_used_at": to_micros(token.last_used),
    }


def token_of(row: Any) -> TokenRow:
    return TokenRow(
        row.id,
        row.user_name,
        row.name,
        Role[row.role.upper()],
        row.hash,
        _moment(row.created_at),
        row.parent_id,
        row.number,
        None if row.last_used_at is None else _moment(row.last_used_at),
    )


def assignment_row(assignment: VpsAssignment) -> dict[str, Any]:
    return {
        "task_id": assignment.task_id,
        "user_name": assignment.user_name,
        "assigned_by": assignment.assigned_by,
        "assigned_at": to_micros(assignment.assigned_at),
    }


def assignment_of(row: Any) -> VpsAssignment:
    return VpsAssignment(TaskId(row.task_id), row.user_name, row.assigned_by, _moment(row.assigned_at))


def registry_credential_row(credential: RegistryCredentialRow) -> dict[str, Any]:
    return {
        "registry": credential.registry,
        "username": credential.username,
        "sealed": credential.sealed,
        "kept_by": credential.kept_by,
        "kept_at": to_micros(credential.kept_at),
    }


def registry_credential_of(row: Any) -> RegistryCredentialRow:
    return RegistryCredentialRow(row.registry, row.username, row.sealed, row.kept_by, _moment(row.kept_at))
