"""Whether there is room where this node must write; a full place is a fault, which keeps new work away.

And whether what workloads leave in a place is harmless to the node's other users; if not it is a notice.

A look may hang (network file systems), so each place has a thread of its own and no look waits for another.
"""

import asyncio
import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import structlog

_INTERVAL_SECONDS = 2.0
PATIENCE_SECONDS = 10.0
# Less than this counts as full, on a small file system less than the fiftieth part of it.
_FULL_BYTES = 64 << 20
_FULL_PART = 50
_WRITE_SECONDS = 60.0
_SAFE_FLAGS = {"nosuid": os.ST_NOSUID, "nodev": os.ST_NODEV}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that must take data. `name` says what it is, in the user's words.

    `of_workloads`: a folder in it that workloads write to and local users of the node may reach. `write_in`:
    a folder in it, made if missing, that must take files; one is written there now and then.
    """

    name: str
    path: Path
    of_workloads: Path | None = None
    write_in: Path | None = None


@dataclass(slots=True)
class _Watched:
    """`fault` None: there is room, or there is no such folder. `notice` None: nothing need be known."""

    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "disk-room"))
    look: "asyncio.Future[_Look] | None" = None
    wrote_at: float = 0.0
    fault: str | None = None
    notice: str | None = None


_Look = tuple[str | None, str | None]
"""The fault and the notice that a look at a place gives."""


class DiskSpaceWatch:
    """`places` is asked before each round, since some become known late."""

    def __init__(
        self, places: Callable[[], Sequence[Place]], interval_seconds: float = _INTERVAL_SECONDS
    ) -> None:
        self._places = places
        self._interval_seconds = interval_seconds
        self._watched: dict[str, _Watched] = {}
        """By name, since what is asked of a place may change."""

    def faults(self) -> list[str]:
        """Sentences about places that are full or do not answer."""
        return [watched.fault for watched in self._watched.values() if watched.fault]

    def notices(self) -> list[str]:
        """Sentences about places that workloads can make dangerous to the node's users."""
        return [watched.notice for watched in self._watched.values() if watched.notice]

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            while True:
                places = self._places()
                await asyncio.gather(*(self._look_at(place) for place in places))
                await asyncio.sleep(self._interval_seconds)
        finally:
            for watched in self._watched.values():
                watched.thread.shutdown(wait=False, cancel_futures=True)

    async def _look_at(self, place: Place) -> None:
        watched = self._watched.setdefault(place.name, _Watched())
        if watched.look is None:
            loop = asyncio.get_running_loop()
            watched.look = loop.run_in_executor(watched.thread, _look, place, watched, time.monotonic())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                fault, watched.notice = await asyncio.shield(watched.look)
            watched.look = None
        except TimeoutError:
            fault = f"{place.name} {place.path} does not answer; is its server or disk unreachable?"
        if fault and not watched.fault:
            _log.error("place_unusable", fault=fault)
        elif watched.fault and not fault:
            _log.info("place_usable_again", place=str(place.path))
        watched.fault = fault


def _look(place: Place, watched: _Watched, now: float) -> _Look:
    fault = fault_of(place, bool(watched.fault))
    if fault is None and place.write_in is not None and (watched.fault or _is_due(watched, now)):
        fault, watched.wrote_at = write_fault_of(place, place.write_in), now
    return fault, notice_of(place)


def _is_due(watched: _Watched, now: float) -> bool:
    return not watched.wrote_at or now - watched.wrote_at > _WRITE_SECONDS


def write_fault_of(place: Place, folder: Path) -> str | None:
    """Say that files cannot be written there and read back. A full place is reported by others. Blocking."""
    word = secrets.token_bytes(16)
    path = folder / f".kohakuriver-write-{os.uname().nodename}"
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "r+b") as file:
            file.write(word)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            came_back = file.read() == word
        path.unlink()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return None
        return (
            f"{place.name} {place.path} takes no files of this runner ({error.strerror or error}), and "
            "output of tasks goes there; mount it so that root of this machine may write"
        )
    return None if came_back else f"{place.name} {place.path} does not give back what was written to it"


def notice_of(place: Place) -> str | None:
    """Say that local users can run or open what workloads leave there, as root could. Blocking."""
    folder = place.of_workloads
    if folder is None:
        return None
    try:
        flags = os.statvfs(folder).f_flag
        real = folder.resolve()
        is_open = all(_lets_others_in(above.stat()) for above in (real, *real.parents))
    except OSError:
        return None
    lacking = [name for name, flag in _SAFE_FLAGS.items() if not flags & flag]
    if not is_open or not lacking:
        return None
    return (
        f"{place.name} {place.path} is mounted without {' and '.join(lacking)}, so set-user-id programs and "
        "devices that workloads leave there have their effect for local users of this node; mount it with "
        "nosuid,nodev, or close a folder above it to them"
    )


def _lets_others_in(folder: os.stat_result) -> bool:
    by_group = folder.st_gid != 0 and folder.st_mode & stat.S_IXGRP
    return bool(folder.st_mode & stat.S_IXOTH or by_group)


def fault_of(place: Place, was_full: bool = False) -> str | None:
    """Say that a place is full. One that was needs twice the room not to be. Blocking."""
    try:
        state = os.statvfs(place.path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{place.name} {place.path} cannot be looked at: {error.strerror or error}"
    room = state.f_bavail * state.f_frsize
    least = min(_FULL_BYTES, state.f_blocks * state.f_frsize // _FULL_PART) * (2 if was_full else 1)
    if room < least:
        return f"{place.name} {place.path} is full ({room >> 10} KiB are free); make room there"
    if state.f_files and not state.f_favail:
        return f"{place.name} {place.path} takes no more files (no inode is free); remove some there"
    return None
