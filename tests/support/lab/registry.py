"""Which labs there are on this machine, and how one is cleared away by whoever finds it.

A lab's id is in the name of all that it makes outside of its folder, and in the environment of every process
that it starts; so whoever has the id can end all of it, also after the process that made it was killed. What
does not bear the id is never touched.
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from support.lab.disk import mounts_from
from support.lab.network import interface_of
from support.machine.processes import (
    began_at,
    cgroups_named,
    kill_until_none,
    processes_in,
    processes_marked,
    remove_cgroups,
    wait_until,
)

MARK = "KOHAKURIVER_LAB"
"""The environment variable that holds the lab's id."""

_RECORDS = Path(tempfile.gettempdir()) / "kohakuriver-labs"


@dataclass(frozen=True)
class LabRecord:
    """What must be known to clear a lab away. `kept`: it is to outlive the process that made it.

    `scratch` holds sockets and the engines' data and goes with the lab; `root` goes too if `owns_root`. `use`
    makes the command line talk to it, once it stands.
    """

    lab_id: str
    root: Path
    scratch: Path
    owns_root: bool
    kept: bool
    owner_pid: int
    owner_began_at: int
    use: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, root: Path | None, *, kept: bool = False) -> "LabRecord":
        """A new lab's, written down before anything of it is made."""
        owner = os.getpid()
        record = cls(
            lab_id=uuid.uuid4().hex[:8],
            root=root or Path(tempfile.mkdtemp(prefix="kohakuriver-lab-")),
            scratch=Path(tempfile.mkdtemp(prefix="krlab-")),
            owns_root=root is None,
            kept=kept,
            owner_pid=owner,
            owner_began_at=began_at(owner) or 0,
        )
        record.save()
        return record

    @property
    def path(self) -> Path:
        return _RECORDS / f"{self.lab_id}.json"

    @property
    def mark(self) -> dict[str, str]:
        return {MARK: self.lab_id}

    @property
    def cgroup_prefix(self) -> str:
        return f"krlab-{self.lab_id}-"

    @property
    def disk_source(self) -> str:
        return f"krlab-{self.lab_id}"

    def save(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        draft = self.path.with_suffix(".new")
        draft.touch(mode=0o600)  # it may hold the administrator's token
        draft.write_text(json.dumps(asdict(self), default=str))
        draft.rename(self.path)

    def is_abandoned(self) -> bool:
        """Tell whether nobody is left who would stop it."""
        return not self.kept and began_at(self.owner_pid) != self.owner_began_at


def all_labs() -> list[LabRecord]:
    """The labs that were written down and are not cleared away yet."""
    records = []
    for path in sorted(_RECORDS.glob("*.json")):
        with contextlib.suppress(FileNotFoundError):
            records.append(_read(path))
    return records


def _read(path: Path) -> LabRecord:
    """A lab of an older or newer checkout may have other fields; those that are needed to clear it stay."""
    written = json.loads(path.read_text())
    known = {each.name: written[each.name] for each in fields(LabRecord) if each.name in written}
    return LabRecord(**known | {"root": Path(known["root"]), "scratch": Path(known["scratch"])})


def clear_away(lab: LabRecord) -> None:
    """End all of a lab; safe for one that was only begun, or is half gone. Raises if something is left."""
    steps: tuple[Callable[[LabRecord], None], ...] = (
        _end_processes,
        _remove_cgroups,
        _await_network_gone,
        _unmount,
        _remove_folders,
    )
    complaints = []
    for step in steps:
        try:
            step(lab)
        except (OSError, subprocess.SubprocessError) as error:
            complaints.append(f"{step.__name__.strip('_')}: {error}")
    if complaints:
        raise RuntimeError(f"lab {lab.lab_id} is not quite gone: {'; '.join(complaints)}")
    lab.path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        _RECORDS.rmdir()


def processes_of(lab: LabRecord) -> list[int]:
    """The lab's own processes, and those of its containers."""
    contained = processes_in(cgroups_named(f"{lab.cgroup_prefix}*"))
    return [*processes_marked(MARK, lab.lab_id), *contained]


def _end_processes(lab: LabRecord) -> None:
    kill_until_none(lambda: processes_of(lab), f"the processes of lab {lab.lab_id}")


def _remove_cgroups(lab: LabRecord) -> None:
    remove_cgroups(cgroups_named(f"{lab.cgroup_prefix}*"))


def _await_network_gone(lab: LabRecord) -> None:
    """The kernel takes the bridge and all links down some time after the last process in their namespaces."""
    interface = Path("/sys/class/net") / interface_of(lab.lab_id)
    wait_until(lambda: not interface.exists(), 20, f"{interface.name} to go")


def _unmount(lab: LabRecord) -> None:
    def unmounted() -> bool:
        for point in mounts_from(lab.disk_source):
            subprocess.run(["umount", point], check=False, capture_output=True)
        return not mounts_from(lab.disk_source)

    wait_until(unmounted, 20, f"the disks of lab {lab.lab_id} to be unmounted")


def _remove_folders(lab: LabRecord) -> None:
    """Another process may be clearing the same abandoned lab away."""
    for folder in (lab.scratch, *([lab.root] if lab.owns_root else [])):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
