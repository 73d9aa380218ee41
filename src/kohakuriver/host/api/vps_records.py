"""VPSs as answers."""

from typing import TYPE_CHECKING

import msgspec

from kohakuriver.host.api.records import Record, TaskRecord, task_record
from kohakuriver.host.auth import Action, may
from kohakuriver.models.enums import SshKeyMode, VpsBackend
from kohakuriver.models.tasks import Task
from kohakuriver.models.vps import VpsSpec, VpsState

if TYPE_CHECKING:
    from kohakuriver.host.api.permissions import Call

_SSH_USER = "root"


class Assignee(Record, frozen=True, kw_only=True):
    """A user to whom a VPS is assigned; `user_id` is null for one that is not there any more."""

    user_id: int | None
    username: str


class VpsRecord(TaskRecord, frozen=True, kw_only=True):
    """One VPS: the fields of a task, and its own.

    `ssh_port` is that of the host's SSH gateway at `ssh_host`, by way of which the VPS's own sshd is
    reached as `ssh_user`; all three are null without SSH, and where the gateway does not listen. `address` is
    the VPS's on its node's network. `host_public_key` is its sshd's (`type base64 comment`). `notice`
    says what went wrong without ending it. `restart_requested`: it is being stopped, or waits for room, to be
    started again. `assignees`: those of them that the caller may know of.
    """

    vps_backend: VpsBackend
    ssh_key_mode: SshKeyMode
    ssh_port: int | None
    ssh_host: str | None
    ssh_user: str | None
    address: str | None
    notice: str | None
    host_public_key: str | None
    restart_requested: bool
    assignees: list[Assignee]


def vps_record(
    task: Task, call: "Call", reasons: list[tuple[str, str]] | None = None, progress: str | None = None
) -> VpsRecord:
    vps, state = task.spec.vps or VpsSpec(), task.vps_state or VpsState()
    gateway = None if vps.ssh_key_mode is SshKeyMode.DISABLED else call.parts.gateway
    own = {
        "vps_backend": vps.backend,
        "ssh_key_mode": vps.ssh_key_mode,
        "ssh_port": gateway.port if gateway else None,
        "ssh_host": call.parts.reachable_at[0] if gateway else None,
        "ssh_user": _SSH_USER if gateway else None,
        "address": task.attempt.address,
        "notice": state.notice,
        "host_public_key": vps.host_public_key or None,
        "restart_requested": state.restart_requested,
        "assignees": assignees_shown(task, call),
    }
    return VpsRecord(**(msgspec.structs.asdict(task_record(task, call, reasons, progress)) | own))


def assignees_shown(task: Task, call: "Call") -> list[Assignee]:
    """All of them for its owner and operators, oneself for an assigned user, else nobody."""
    names = [row.user_name for row in call.control.accounts.known.assigned(task.id)]
    if not may(call.actor, Action.CONTROL_TASK, task.owner):
        names = [name for name in names if name == call.actor.name]
    number_of = call.control.accounts.known.number_of
    return [Assignee(user_id=number_of(name), username=name) for name in names]
