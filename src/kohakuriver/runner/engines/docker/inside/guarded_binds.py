"""Folders of the node as workloads get them: without effect of set-user-id bits and device nodes in them.

The engine's API has no option for that. So the runner mounts each folder once more, with nosuid and nodev,
and gives that mount to the engine, whose own bind keeps the flags. Rules:

- What a workload gets is what lies at the folder now, which may have been mounted since: compared each time.
- There is one mount in a place, whatever runners ended before. A place without its mount does not exist, so
  that the engine never takes an empty folder for it.
- What is mounted inside the folder comes along, and what was unmounted there goes.
- The places are in /run, which a reboot empties and nobody clears by hand, as one might a folder in a home.
- Where the engine does not see our mounts, or they cannot be made, workloads get the folder itself, and a
  notice says so.

All functions block but `refresh_at_start`.
"""

import asyncio
import errno
import hashlib
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from kohakuriver.files.system import calls as system_calls
from kohakuriver.files.system.kernel_mounts import is_below, is_mount
from kohakuriver.files.system.linkless import folder_below
from kohakuriver.models.errors import EngineFault, KohakuRiverError
from kohakuriver.runner.engines.contract.faults import storage_fault
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.docker.kernel.container_shims import parent_of

_RUN, _PLACES = Path("/run"), ("kohakuriver", "mounts")
_PRIVATE_MODE = 0o700
_MOST_STACKED = 64
_LINK_ON_THE_WAY = (errno.ELOOP, errno.ENOTDIR)
_KEPT_OPTIONS = {
    b"ro": system_calls.MS_RDONLY,
    b"noexec": system_calls.MS_NOEXEC,
    b"noatime": system_calls.MS_NOATIME,
    b"nodiratime": system_calls.MS_NODIRATIME,
    b"relatime": system_calls.MS_RELATIME,
}
_log = structlog.get_logger()
_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class GuardedFolder:
    """A folder that is `names` below one of the administrator's; links among the names are not followed."""

    name: str
    start: Path
    names: tuple[str, ...]

    @property
    def path(self) -> str:
        return str(self.start.joinpath(*self.names))


class GuardedBinds:
    """`owner` tells runners on one machine apart. `remove` takes all mounts away; workloads keep theirs."""

    @classmethod
    def of_runner(cls, node_name: str, state_dir: Path, folders: Sequence[GuardedFolder]) -> "GuardedBinds":
        return cls(owner_name(node_name, state_dir), folders)

    def __init__(self, owner: str, folders: Sequence[GuardedFolder]) -> None:
        self._owner = owner
        self._folders = {folder.path: folder for folder in folders}
        self._turns = {path: threading.Lock() for path in self._folders}
        self._failures: dict[str, str] = {}
        """By the path of a folder, why it cannot be mounted anew."""
        self._is_seen = True

    def notices(self) -> list[str]:
        """Empty while workloads get their folders guarded, and before the first one asked."""
        reasons = set(self._failures.values())
        if not self._is_seen:
            reasons = {"the engine does not see the runner's mounts"}
        return [
            "set-user-id programs and devices that workloads leave in /local_temp and /shared have their "
            f"effect in others, because {reason}"
            for reason in sorted(reasons)
        ]

    def guarded(self, spec: WorkloadSpec, engine_child: int | None) -> WorkloadSpec:
        """The same with the sources of mounts that the engine is to be given."""
        mounts = [replace(mount, source=self.source_of(mount.source, engine_child)) for mount in spec.mounts]
        return replace(spec, mounts=tuple(mounts))

    def source_of(self, source: str, engine_child: int | None) -> str:
        """Return what to give the engine for a folder of the node.

        `engine_child`: the first process of any container of the engine; None: it cannot be seen from here.
        """
        folder = self._folders.get(source)
        if folder is None:
            return source
        place = self._ensured(folder)
        if place is None:
            return source
        self._is_seen = _sees_our_mounts(engine_child)
        return str(place) if self._is_seen else source

    def refresh(self) -> None:
        """Bring all mounts to what lies at the folders now, for containers that were made before."""
        for folder in self._folders.values():
            self._ensured(folder)

    async def refresh_at_start(self) -> None:
        """Have the notice early; storage that hangs holds up nobody, and what fails is told to who asks."""
        try:
            await asyncio.to_thread(self.refresh)
        except KohakuRiverError as error:
            _log.warning("folder_not_guarded", error=str(error))

    def remove(self) -> None:
        names = (*_PLACES, self._owner)
        with suppress(OSError), folder_below(_RUN, names, access=os.O_RDONLY) as places:
            for name in os.listdir(places):
                _clear(places, name, self._place(name))
        with suppress(OSError):
            os.rmdir(_RUN.joinpath(*_PLACES, self._owner))

    def _place(self, name: str) -> bytes:
        return os.fsencode(_RUN.joinpath(*_PLACES, self._owner, name))

    def _ensured(self, folder: GuardedFolder) -> Path | None:
        """Return the place where it is mounted; None: there is no such folder, or it cannot be mounted."""
        with self._turns[folder.path]:
            try:
                with folder_below(folder.start, folder.names) as found:
                    return self._mounted(folder, found)
            except FileNotFoundError:
                self._forget(folder)
                return None  # the engine's own refusal names the path
            except OSError as error:
                if error.errno in _LINK_ON_THE_WAY:
                    raise EngineFault(
                        f"{folder.path} cannot be given to workloads: a part of it below {folder.start} is a "
                        "link or no folder; put a folder or a mount there"
                    ) from error
                raise storage_fault("what workloads leave", Path(folder.path), error) from error

    def _mounted(self, folder: GuardedFolder, found: int) -> Path | None:
        place = self._place(folder.name)
        try:
            with folder_below(_RUN, (*_PLACES, self._owner), made_with=_PRIVATE_MODE) as places:
                if not (_is_same(place, found) and _has_same_inside(place, found)):
                    _clear(places, folder.name, place)
                    _bind(places, folder.name, place, found)
                _forbid(place)
        except OSError as error:
            self._failures[folder.path] = f"the runner cannot mount them anew ({error.strerror})"
            self._forget(folder)
            return None
        self._failures.pop(folder.path, None)
        return Path(os.fsdecode(place))

    def _forget(self, folder: GuardedFolder) -> None:
        with suppress(OSError), folder_below(_RUN, (*_PLACES, self._owner)) as places:
            _clear(places, folder.name, self._place(folder.name))


def owner_name(node_name: str, state_dir: Path) -> str:
    """What tells this runner's mounts from those of another on the machine, as tests have them."""
    return f"{node_name}-{hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:12]}"


def _is_same(place: bytes, found: int) -> bool:
    try:
        there = os.stat(place)
    except OSError:
        return False
    wanted = os.fstat(found)
    return (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino)


def _has_same_inside(place: bytes, found: int) -> bool:
    """Whether the same is mounted inside both; a mount that is not shared tells ours nothing of new ones."""
    original = os.readlink(f"/proc/self/fd/{found}".encode())
    inside: dict[bytes, set[tuple[bytes, ...]]] = {original: set(), place: set()}
    for fields in _mount_table():
        for top, entries in inside.items():
            if fields[4] != top and is_below(fields[4], top):
                entries.add((fields[4][len(top) :], fields[2], fields[3]))
    return inside[original] == inside[place]


def _mount_table() -> Iterator[list[bytes]]:
    """The lines of proc_pid_mountinfo(5); field 4 is where it is mounted, 3 what of its file system."""
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        fields[4] = _OCTAL.sub(lambda octal: bytes([int(octal[1], 8)]), fields[4])
        yield fields


def _clear(places: int, name: str, place: bytes) -> None:
    """Leave neither a mount nor the folder that it was on."""
    with suppress(FileNotFoundError):
        for _ in range(_MOST_STACKED):
            if not is_mount(places, os.fsencode(name)):
                break
            system_calls.detach_mount(place)
        os.rmdir(name, dir_fd=places)


def _bind(places: int, name: str, place: bytes, found: int) -> None:
    os.mkdir(name, _PRIVATE_MODE, dir_fd=places)
    try:
        source = f"/proc/self/fd/{found}".encode()
        system_calls.mount(source, place, system_calls.MS_BIND | system_calls.MS_REC)
        system_calls.mount(None, place, system_calls.MS_SLAVE | system_calls.MS_REC)
        _forbid(place)
    except BaseException:
        _clear(places, name, place)
        raise


def _forbid(place: bytes) -> None:
    """Set the flags on the mount and on all that came to lie in it; nothing changes where they are set."""
    try:
        system_calls.forbid_suid_and_devices(place)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        _forbid_one_by_one(place)


def _forbid_one_by_one(place: bytes) -> None:
    added = system_calls.MS_NOSUID | system_calls.MS_NODEV
    for fields in _mount_table():
        target, options = fields[4], fields[5].split(b",")
        if is_below(target, place) and not {b"nosuid", b"nodev"} <= set(options):
            kept = sum(_KEPT_OPTIONS.get(option, 0) for option in options)
            system_calls.mount(None, target, system_calls.MS_REMOUNT | system_calls.MS_BIND | kept | added)


def _sees_our_mounts(engine_child: int | None) -> bool:
    """Whether what makes the engine's containers, the parent of their first processes, has our mounts."""
    if engine_child is None:
        return False
    try:
        maker = Path("/proc", str(parent_of(engine_child)))
        theirs, their_root = (maker / "ns/mnt").stat(), (maker / "root").stat()
    except OSError:
        return False
    ours, our_root = Path("/proc/self/ns/mnt").stat(), Path("/").stat()
    return (theirs.st_ino, their_root.st_ino) == (ours.st_ino, our_root.st_ino)
