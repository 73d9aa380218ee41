"""The process of an exec as this machine sees it, so that it can be ended without the engine.

Newer engines (seen with 26.1) answer nothing about an exec that has ended until its output was read. So who
hangs up on output that nobody wants must not ask them. A process is known by its number and the time of its
start, so that no later one with that number is meant.
"""

import asyncio
import contextlib
import os
from pathlib import Path

from kohakuriver.descriptors import until_readable

_GONE = frozenset("ZX")
_LOOK_AGAIN_SECONDS = 0.02


class ExecProcess:
    """Make it with `of`. Where it cannot be seen or is not ours to signal, it counts as gone."""

    def __init__(self, pid: int, start_ticks: int) -> None:
        self._pid = pid
        self._start_ticks = start_ticks

    @classmethod
    def of(cls, pid: int, container_id: str) -> "ExecProcess | None":
        """None for one that has ended, and where the engine runs elsewhere: another has that number here."""
        with contextlib.suppress(OSError):
            if pid > 1 and container_id in Path(f"/proc/{pid}/cgroup").read_text():
                start_ticks = _start_of(pid)
                return None if start_ticks is None else cls(pid, start_ticks)
        return None

    def runs(self) -> bool:
        return _start_of(self._pid) == self._start_ticks

    def signal_group(self, number: int) -> bool:
        """Tell whether there was a process to be signalled."""
        with contextlib.suppress(OSError):
            if self.runs():
                os.killpg(self._pid, number)
                return True
        return False

    async def has_gone(self, seconds: float) -> bool:
        """Wait so long for its end."""
        deadline = asyncio.get_running_loop().time() + seconds
        while self.runs():
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        return True


def _start_of(pid: int) -> int | None:
    """From `/proc/<pid>/stat` (proc(5)); None for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # One whose first thread has ended lives on in its others.
    return None if fields[0] in _GONE and int(fields[17]) <= 1 else int(fields[19])


async def end_of_container(container_id: str, first_pid: int) -> None:
    """Wait until its first process has ended, and with it all others; for ever if it cannot be seen."""
    try:
        descriptor = os.pidfd_open(first_pid)
    except ProcessLookupError:
        return
    try:
        if not _is_in(container_id, first_pid):
            await asyncio.get_running_loop().create_future()
        await until_readable(descriptor)
    finally:
        os.close(descriptor)


def _is_in(container_id: str, pid: int) -> bool:
    """Also one that ended just now."""
    try:
        return container_id in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return True
