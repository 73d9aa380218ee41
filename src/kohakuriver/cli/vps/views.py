"""VPSs and their snapshots as tables and facts."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kohakuriver.cli.console.output import Facts, Table
from kohakuriver.cli.console.sizes import age_text, moment_text, size_text
from kohakuriver.cli.tasks.views import container_facts, run_time_text
from kohakuriver.models.enums import SshKeyMode

if TYPE_CHECKING:
    from kohakuriver.client.vps_records import Assignment, SnapshotRecord, VpsRecord

_SSH_TEXTS = {
    SshKeyMode.DISABLED: "off",
    SshKeyMode.NONE: "on, without a password",
    SshKeyMode.UPLOAD: "on, with your public keys",
    SshKeyMode.GENERATE: "on, with the key that was made for it",
}


def vps_table(records: "Sequence[VpsRecord]", now: datetime | None = None) -> Table:
    now = now or datetime.now(UTC)
    return Table(
        headings=("ID", "NAME", "STATE", "NODE", "ADDRESS", "CORES", "MEMORY", "GPUS", "SSH", "OWNER", "AGE"),
        rows=[
            (
                item.task_id,
                item.name or "-",
                item.status.value,
                item.assigned_node or "-",
                item.address or "-",
                str(item.required_cores),
                size_text(item.required_memory_bytes or None),
                ",".join(map(str, item.required_gpus)) or "-",
                "-" if item.ssh_key_mode is SshKeyMode.DISABLED else item.ssh_key_mode.value,
                item.owner or "-",
                age_text(item.submitted_at, now),
            )
            for item in records
        ],
        state_column=2,
        empty="No VPSs; `kohakuriver vps create --ssh` makes one.",
    )


def vps_facts(vps: "VpsRecord", now: datetime | None = None) -> Facts:
    now = now or datetime.now(UTC)
    return Facts(
        [
            ("VPS", vps.task_id),
            ("Name", vps.name or ""),
            ("State", vps.status.value),
            ("Notice", vps.notice or ""),
            ("Message", vps.error_message or ""),
            *((f"Not on {item.node}", item.reason) for item in vps.pending_reasons),
            ("Node", vps.assigned_node or ""),
            ("Progress", vps.progress or ""),
            ("Target", vps.target or ""),
            ("Address", vps.address or ""),
            ("SSH", _SSH_TEXTS[vps.ssh_key_mode]),
            ("Environment", vps.container_name or ""),
            ("Image", vps.registry_image or ""),
            ("Image digest", vps.image_digest or ""),
            ("Cores", str(vps.required_cores) if vps.required_cores else "no limit"),
            ("Memory", _limit_text(vps.required_memory_bytes)),
            ("GPUs", ",".join(map(str, vps.required_gpus))),
            ("Mounts", " ".join(vps.additional_mounts)),
            ("Privileged", "yes" if vps.privileged else ""),
            ("Capabilities", " ".join(vps.capabilities)),
            *container_facts(vps),
            ("Owner", vps.owner or ""),
            ("Run", str(vps.attempt) if vps.attempt > 1 else ""),
            ("Created", moment_text(vps.submitted_at, now)),
            ("Started", moment_text(vps.started_at, now)),
            ("Ended", moment_text(vps.completed_at, now)),
            ("Run time", run_time_text(vps, now) if vps.started_at else ""),
        ]
    )


def snapshot_table(snapshots: "Sequence[SnapshotRecord]", now: datetime | None = None) -> Table:
    now = now or datetime.now(UTC)
    return Table(
        headings=("TIME", "CREATED", "SIZE", "MESSAGE"),
        rows=[
            (
                str(item.timestamp),
                moment_text(_moment_of(item), now),
                size_text(item.size_bytes),
                item.message,
            )
            for item in snapshots
        ],
        empty="No snapshots; `kohakuriver vps snapshot create ID` makes one.",
    )


def snapshot_facts(snapshot: "SnapshotRecord", now: datetime | None = None) -> Facts:
    return Facts(
        [
            ("Time", str(snapshot.timestamp)),
            ("Created", moment_text(_moment_of(snapshot), now or datetime.now(UTC))),
            ("Size", size_text(snapshot.size_bytes)),
            ("Message", snapshot.message),
        ]
    )


def assignment_table(assignments: "Sequence[Assignment]", now: datetime | None = None) -> Table:
    now = now or datetime.now(UTC)
    return Table(
        headings=("USER", "ASSIGNED BY", "AGE"),
        rows=[
            (item.username, item.assigned_by or "-", age_text(item.assigned_at, now)) for item in assignments
        ],
        empty="It is assigned to nobody; its owner and operators may use it.",
    )


def _limit_text(limit_bytes: int | None) -> str:
    return size_text(limit_bytes) if limit_bytes else "default"


def _moment_of(snapshot: "SnapshotRecord") -> datetime:
    return snapshot.created_at or datetime.fromtimestamp(snapshot.timestamp, UTC)
