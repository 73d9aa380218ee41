"""What the store keeps beside tasks, as frozen records, and the set of changes of one transaction."""

from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import OrderKind, Role
from kohakuriver.models.events import EventKind
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task
from kohakuriver.wire.messages import Registration


class OrderRow(msgspec.Struct, frozen=True):
    """An order that its runner has not answered yet; its content follows from the task."""

    id: int
    node: str
    task_id: TaskId
    attempt: int
    kind: OrderKind
    created_at: datetime


class TaskEvent(msgspec.Struct, frozen=True):
    """A line that a task's history is given."""

    task_id: TaskId
    at: datetime
    kind: EventKind
    attempt: int
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A line of a history as it was written, perhaps by another version, whose kinds are not known here."""

    task_id: TaskId
    at: datetime
    kind: str
    attempt: int
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class NumberedEvent:
    """A line of history with its number, which grows over the whole cluster, and the owner of its task."""

    number: int
    owner: str
    event: StoredEvent


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node that was approved. `address` is where its registration came from; None before the first one.

    `draining`: it gets no new work, because an administrator wants it empty.
    """

    hostname: str
    public_key: str
    approved_by: str
    approved_at: datetime
    registration: Registration | None = None
    address: str | None = None
    faults: tuple[str, ...] = ()
    draining: bool = False


@dataclass(frozen=True, slots=True)
class EnrolmentRow:
    """A runner that waits for approval, named by the fingerprint of its key."""

    fingerprint: str
    hostname: str
    public_key: str
    first_seen: datetime


@dataclass(frozen=True, slots=True)
class JoinTokenRow:
    """A join token; good once, until it expires. `used_by_key`: public key of the node that used it."""

    id: str
    secret: str
    created_by: str
    created_at: datetime
    expires_at: datetime
    used_by_key: str | None = None


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user. `number` 0: none yet, `Turn.put_user` gives one."""

    name: str
    role: Role
    active: bool
    created_at: datetime
    number: int = 0


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A user's token; `hash` is the SHA-256 of its text, which is nowhere kept.

    `parent_id`: the token that it was made with; None where the host made it, or a version that kept none.
    `number` 0: none yet, `Turn.add_token` gives one that no other token ever had.
    """

    id: str
    user_name: str
    name: str
    role: Role
    hash: str
    created_at: datetime
    parent_id: str | None = None
    number: int = 0
    last_used: datetime | None = None


@dataclass(frozen=True, slots=True)
class VpsAssignment:
    """A user who may use somebody else's VPS."""

    task_id: TaskId
    user_name: str
    assigned_by: str
    assigned_at: datetime


@dataclass(frozen=True, slots=True)
class RegistryCredentialRow:
    """A user of a registry; the password is `sealed` under a key that is not in the store."""

    registry: str
    username: str
    sealed: bytes = field(repr=False)
    kept_by: str
    kept_at: datetime


@dataclass(slots=True)
class Changes:
    """Everything that one transaction writes. A task is in one place at most: new, changed, or deleted."""

    new_tasks: dict[TaskId, Task] = field(default_factory=dict)
    changed_tasks: dict[TaskId, Task] = field(default_factory=dict)
    ended_attempts: dict[tuple[TaskId, int], Attempt] = field(default_factory=dict)
    deleted_tasks: list[TaskId] = field(default_factory=list)
    events: list[TaskEvent] = field(default_factory=list)
    new_orders: dict[int, OrderRow] = field(default_factory=dict)
    done_orders: list[int] = field(default_factory=list)
    nodes: dict[str, NodeRow] = field(default_factory=dict)
    ended_nodes: list[str] = field(default_factory=list)
    enrolments: dict[str, EnrolmentRow] = field(default_factory=dict)
    ended_enrolments: list[str] = field(default_factory=list)
    join_tokens: dict[str, JoinTokenRow] = field(default_factory=dict)
    ended_join_tokens: list[str] = field(default_factory=list)
    users: dict[str, UserRow] = field(default_factory=dict)
    new_tokens: dict[str, TokenRow] = field(default_factory=dict)
    ended_tokens: list[str] = field(default_factory=list)
    assignments: dict[tuple[TaskId, str], VpsAssignment] = field(default_factory=dict)
    ended_assignments: list[tuple[TaskId, str]] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(
            (
                self.new_tasks,
                self.changed_tasks,
                self.ended_attempts,
                self.deleted_tasks,
                self.events,
                self.new_orders,
                self.done_orders,
                self.nodes,
                self.ended_nodes,
                self.enrolments,
                self.ended_enrolments,
                self.join_tokens,
                self.ended_join_tokens,
                self.users,
                self.new_tokens,
                self.ended_tokens,
                self.assignments,
                self.ended_assignments,
                self.meta,
            )
        )
