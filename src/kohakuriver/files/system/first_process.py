"""The first process of a workload, held by a pidfd, so that no other process of its number is taken for it.

Whoever holds one asks the engine for its number before and after opening it: if both answers agree, the
process behind the pidfd is the workload's, whatever becomes of it later.
"""

import os
import select
from collections.abc import Awaitable, Callable
from pathlib import Path

from kohakuriver.files.system.id_maps import IdMaps
from kohakuriver.models.errors import Conflict, Unavailable

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class FirstProcess:
    """`pidfd` becomes readable when it has ended. Close it once."""

    def __init__(self, pid: int) -> None:
        try:
            self.pidfd = os.pidfd_open(pid)
        except ProcessLookupError as error:
            raise _ended() from error
        self._pid = pid

    def has_ended(self) -> bool:
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return bool(poller.poll(0))

    def open_root(self) -> tuple[int, bytes, IdMaps]:
        """Return a descriptor of its root, its table of mounts, and who its users are here. Blocking."""
        try:
            proc = os.open(f"/proc/{self._pid}", _FOLDER)
            try:
                self._refuse_own_files(proc)
                mountinfo, ids = _content(proc, "mountinfo"), IdMaps.of(proc)
                root = os.open("root", _FOLDER, dir_fd=proc)
            finally:
                os.close(proc)
        except PermissionError as error:
            raise Unavailable(
                "this program may not look into the workload's files; it needs the rights of root"
            ) from error
        except OSError as error:
            raise _ended() from error
        if self.has_ended():  # so the number may have been another's when the folder was opened
            os.close(root)
            raise _ended()
        return root, mountinfo, ids

    def _refuse_own_files(self, proc: int) -> None:
        """A process that shares our mounts is none of a container's: the engine runs on another machine."""
        theirs, ours = os.stat("ns/mnt", dir_fd=proc), Path("/proc/self/ns/mnt").stat()
        if (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino):
            raise Unavailable(
                "the engine's processes cannot be seen from here; files work where engine and runner run on "
                "one machine"
            )

    def close(self) -> None:
        os.close(self.pidfd)


async def hold_first_process(first_pid: Callable[[], Awaitable[int]]) -> FirstProcess:
    """Open the process that the engine names; the caller closes it. Raises Conflict if it ends meanwhile."""
    pid = await first_pid()
    process = FirstProcess(pid)
    try:
        again = await first_pid()
    except BaseException:
        process.close()
        raise
    if again != pid:
        process.close()
        raise _ended()
    return process


def _content(folder: int, name: str) -> bytes:
    file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    with open(file, "rb") as reader:
        return reader.read()


def _ended() -> Conflict:
    return Conflict("the workload ended or was restarted just now; try again once it runs")
