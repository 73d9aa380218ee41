"""Fields of tasks under the names that earlier clients know: what they are here, null where there is none."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from kohakuriver.models.enums import TaskState
from kohakuriver.models.tasks import Task
from kohakuriver.wire.task_record import TaskRecord

if TYPE_CHECKING:
    from kohakuriver.host.api.permissions import Call


class EarlierTaskFields(TaskRecord, frozen=True, kw_only=True):
    """`docker_image_name`: the registry image, else the environment. Ids of users are their numbers.

    `approval_status`: `pending`, `approved`, `rejected`, or null where nobody was asked. When it was approved
    is not kept; the task's events tell it.
    """

    docker_image_name: str | None
    docker_privileged: bool
    docker_mount_dirs: tuple[str, ...]
    ssh_port: int | None = None
    owner_id: int | None
    owner_username: str
    approval_status: str | None = None
    approved_at: datetime | None = None
    approved_by_id: int | None = None
    approved_by_username: str | None = None
    rejection_reason: str | None = None
    vps_backend: str | None = None
    vm_image: str | None = None
    vm_disk_size: str | None = None
    vm_ip: str | None = None


def earlier_fields(task: Task, call: "Call") -> dict[str, Any]:
    """What is not as by default; lists have a thousand of these."""
    spec = task.spec
    fields: dict[str, Any] = {
        "docker_image_name": spec.registry_image or spec.container_name or call.parts.default_environment,
        "docker_privileged": spec.privileged,
        "docker_mount_dirs": spec.additional_mounts,
        "owner_id": call.control.accounts.known.number_of(task.owner),
        "owner_username": task.owner,
    }
    if task.decided_by is not None or task.state is TaskState.PENDING_APPROVAL:
        fields |= _decision(task, call)
    return fields


def _decision(task: Task, call: "Call") -> dict[str, Any]:
    approver = task.decided_by
    if approver is None:
        return {"approval_status": "pending"}
    if task.state is TaskState.REJECTED:
        return {"approval_status": "rejected", "rejection_reason": task.error_message}
    return {
        "approval_status": "approved",
        "approved_by_id": call.control.accounts.known.number_of(approver),
        "approved_by_username": approver,
    }
