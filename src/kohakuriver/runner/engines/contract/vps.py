"""The part of the engine contract that concerns VPSs (`docs/design/0009-vps.md`)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kohakuriver.models.enums import SshKeyMode
from kohakuriver.models.ids import TaskId

NO_SSH_HELP = (
    "choose another image, or make the VPS without SSH: with none of the options about SSH and keys, "
    "which is mode disabled"
)
"""What helps whose image cannot have SSH. `--no-ssh-key` is SSH too, without a key (mode none)."""


@dataclass(frozen=True, slots=True)
class VpsSetup:
    """What makes a workload a VPS. Its fields are those of `models.vps`.

    `address`: the one that it had before, to be had again where that is free. `restore`: `FROM_NEWEST`,
    `FROM_IMAGE` or the unix time of a snapshot that is on this node.
    """

    hostname: str
    ssh_key_mode: SshKeyMode
    authorized_keys: tuple[str, ...]
    host_key: str = field(repr=False)
    address: str | None
    restore: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of a VPS that was kept. `at`: unix time, which names it; `size_bytes`: what it adds."""

    at: int
    message: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class KeptSnapshots:
    """How many snapshots a VPS may have (at least 1), and which of the older ones stays in any case."""

    most: int
    protected: int | None = None

    def too_old(self, newest_first: Sequence[int]) -> list[int]:
        """Which of these times are to go; never the newest."""
        protected = {newest_first[0], self.protected} if newest_first else set()
        others = [at for at in newest_first if at not in protected]
        room = max(self.most - len(protected.intersection(newest_first)), 0)
        return others[room:]


class VpsOperations(Protocol):
    """Errors are those of the engine contract; NotFound where the VPS or the snapshot is not there."""

    async def set_up(self, task_id: TaskId, attempt: int, setup: VpsSetup) -> str:
        """Make a started VPS ready (host name, SSH); return its address. May be repeated.

        Raises EngineFault with a sentence for its owner where the image has no sshd and can get none.
        """

    async def start_again(self, task_id: TaskId, attempt: int) -> None:
        """Start a VPS whose first process has ended, with all its files; free if it runs."""

    async def end_processes(self, task_id: TaskId, attempt: int, grace_seconds: float) -> None:
        """End all that runs in a VPS and leave the VPS running: SIGTERM, after the grace SIGKILL.

        Shells are hung up. A paused VPS is thawed first. Where its processes cannot be seen nothing is
        done. May be repeated.
        """

    async def take_snapshot(
        self, task_id: TaskId, attempt: int, message: str, kept: KeptSnapshots
    ) -> Snapshot:
        """Keep what the VPS's disk holds now; those that `kept` has no place for are deleted.

        Its processes are frozen for as long as that needs. A failed one leaves the VPS as it was.
        """

    async def list_snapshots(self, task_id: TaskId) -> list[Snapshot]:
        """Newest first. Snapshots outlive the VPS and its attempts."""

    async def kept_vps(self) -> list[TaskId]:
        """The VPSs of which there are snapshots here, in no order."""

    async def delete_snapshot(self, task_id: TaskId, at: int) -> None:
        """Raises NotFound if there is none of that time."""

    async def export_snapshot(self, task_id: TaskId, at: int, path: Path) -> None:
        """Write it to `path`, complete or not at all."""

    async def import_snapshot(self, task_id: TaskId, at: int, path: Path) -> None:
        """Take in what `export_snapshot` wrote, on any node; free if it is here."""
