"""Sessions as answers."""

import msgspec

from kohakuriver.host.api.records import TaskRecord, task_record
from kohakuriver.host.auth import Actor
from kohakuriver.models.enums import SshKeyMode, VpsBackend
from kohakuriver.models.sessions import SessionState, VpsSpec
from kohakuriver.models.tasks import Task

SSH_PORT = 22


class VpsRecord(TaskRecord, frozen=True, kw_only=True):
    """One session: the fields of a task, and its own.

    `ssh_port` is that of its sshd at `address`, null without SSH; from outside it is reached through the
    gateway. `host_public_key` is its sshd's (`type base64 comment`). `notice` says what went wrong without
    ending it. `restart_requested`: it is being stopped, or waits for room, to be started again.
    """

    vps_backend: VpsBackend
    ssh_key_mode: SshKeyMode
    ssh_port: int | None
    address: str | None
    notice: str | None
    host_public_key: str | None
    restart_requested: bool


def vps_record(
    task: Task, actor: Actor, reasons: list[tuple[str, str]] | None = None, progress: str | None = None
) -> VpsRecord:
    vps, state = task.spec.vps or VpsSpec(), task.session or SessionState()
    return VpsRecord(
        **msgspec.structs.asdict(task_record(task, actor, reasons, progress)),
        vps_backend=vps.backend,
        ssh_key_mode=vps.ssh_key_mode,
        ssh_port=None if vps.ssh_key_mode is SshKeyMode.DISABLED else SSH_PORT,
        address=state.address,
        notice=state.notice,
        host_public_key=vps.host_public_key or None,
        restart_requested=state.restart_requested,
    )
