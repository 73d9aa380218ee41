"""Fields of tasks under the names that earlier clients know: what they are here, null where there is none."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from kohakuriver.models.enums import TaskState
from kohakuriver.models.tasks import Task

if TYPE_CHECKING:
    from kohakuriver.host.api.permissions import Call


class EarlierTaskFields(msgspec.Struct, frozen=True, kw_only=True):
    """`docker_image_name`: the registry image, else the environment. Ids of users are their numbers.

    `approval_status`: `pending`, `approved`, `rejected`, or null where nobody was asked. When it was approved
    is not kept; the task's events tell it.
    """

    docker_image_name: str | None
    docker_privileged: bool
    docker_mount_dirs: tuple[str, ...]
    ssh_port: int | None
    owner_id: int | None
    owner_username: str
    approval_status: str | None
    approved_at: datetime | None
    approved_by_id: int | None
    approved_by_username: str | None
    rejection_reason: str | None
    vps_backend: str | None
    vm_image: str | None
    vm_disk_size: str | None
    vm_ip: str | None


def earlier_fields(task: Task, call: "Call") -> dict[str, Any]:
    spec = task.spec
    return {
        "docker_image_name": spec.registry_image or spec.container_name or call.parts.default_environment,
        "docker_privileged": spec.privileged,
        "docker_mount_dirs": spec.additional_mounts,
        "ssh_port": None,
        "owner_id": _number_of(call, task.owner),
        "owner_username": task.owner,
        **_decision(task, call),
        "vps_backend": None,
        "vm_image": None,
        "vm_disk_size": None,
        "vm_ip": None,
    }


def _decision(task: Task, call: "Call") -> dict[str, Any]:
    is_rejected = task.state is TaskState.REJECTED
    approver = None if is_rejected else task.decided_by
    word = "approved" if approver else None
    if task.state is TaskState.PENDING_APPROVAL:
        word = "pending"
    elif is_rejected:
        word = "rejected"
    return {
        "approval_status": word,
        "approved_at": None,
        "approved_by_id": _number_of(call, approver) if approver else None,
        "approved_by_username": approver,
        "rejection_reason": task.error_message if is_rejected else None,
    }


def _number_of(call: "Call", name: str) -> int | None:
    user = call.parts.auth.user(name)
    return user.number if user else None
