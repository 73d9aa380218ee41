"""All processes of a container, as this machine sees them, and signals to them past the engine.

An engine signals only a container's first process, which hands a signal on to its child; what that child has
started would hear of nothing, and be killed with the namespace as soon as the child is gone. So processes are
found by their namespace, and the first one, an init of the engine's, is halted while the others end: their
namespace lasts until the last of them has ended, or until the first is told to go on.

A process is named by its number and the time of its start, so that no later one with that number is meant.
Where an engine's processes cannot be seen or signalled (in another namespace, without rights) there is no
`InnerProcesses`. Everything but `all_end` takes milliseconds and belongs in a thread.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.pauses import growing_pauses
from kohakuriver.runner.engines.docker.kernel.container_shims import is_first_of

INNER_INIT = ("/sbin/docker-init", "-s", "--")
"""An init below the container's first process, which is one itself; it hands signals on to its child."""
_GONE = frozenset("ZX")
_INIT = tuple(word.encode() for word in INNER_INIT)
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    start_ticks: int
    parent: int
    has_terminal: bool


class InnerProcesses:
    """Of one container; make it with `of`."""

    def __init__(self, first: Process, namespace: str) -> None:
        self._first = first
        self._namespace = namespace

    @classmethod
    def of(cls, container_id: str, first_pid: int) -> "InnerProcesses | None":
        """`first_pid`: of its first process, as the engine says."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            first = _read(first_pid)
            namespace = os.readlink(f"/proc/{first_pid}/ns/pid")
            if first is not None and is_first_of(first_pid, container_id):
                _send(first, ())
                return cls(first, namespace)
        return None

    def hold_first(self) -> None:
        """Halt the first process, so that the end of its child is not yet the end of all."""
        _send(self._first, (signal.SIGSTOP,))

    def release_first(self) -> None:
        _send(self._first, (signal.SIGCONT,))

    def all(self, spared: Collection[tuple[bytes, ...]] = ()) -> list[Process]:
        """Those that run, the first one left out, and its children of the argument vectors `spared`."""
        seen = {process.pid: process for process in _all_processes()}
        inside = {pid for pid in seen if _namespace_of(pid) == self._namespace}
        size = 0
        while len(inside) > size:  # what lives in namespaces below this one has its parents in this one
            size = len(inside)
            inside.update(pid for pid, process in seen.items() if process.parent in inside)
        inside.discard(self._first.pid)
        return [seen[pid] for pid in inside if not self._is_spared(seen[pid], spared)]

    def send(self, processes: Iterable[Process], *numbers: int) -> None:
        for process in processes:
            if not self._hands_on(process):
                _send(process, numbers)

    def tell_to_end(self, processes: Iterable[Process]) -> None:
        """SIGTERM; what has a terminal loses it, since shells heed nothing else; what is halted goes on."""
        for process in processes:
            self.send([process], signal.SIGTERM, *((signal.SIGHUP,) if process.has_terminal else ()))
            self.send([process], signal.SIGCONT)

    async def all_end(self, spared: Collection[tuple[bytes, ...]] = ()) -> None:
        """Return when none runs any more, whoever was started meanwhile included."""
        while left := await asyncio.to_thread(self.all, spared):
            for seconds in growing_pauses(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, growth=1.5, jitter=0):
                if not any(map(_is_alive, left)):
                    break
                await asyncio.sleep(seconds)

    def _is_spared(self, process: Process, spared: Collection[tuple[bytes, ...]]) -> bool:
        return bool(spared) and process.parent == self._first.pid and _words_of(process) in spared

    def _hands_on(self, process: Process) -> bool:
        """Whether it is an init of ours, whose child would hear of a signal twice."""
        return process.parent == self._first.pid and _words_of(process)[: len(_INIT)] == _INIT


def _words_of(process: Process) -> tuple[bytes, ...]:
    try:
        return tuple(Path(f"/proc/{process.pid}/cmdline").read_bytes().removesuffix(b"\0").split(b"\0"))
    except OSError:
        return ()


def _all_processes() -> list[Process]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                if (process := _read(int(name))) is not None:
                    found.append(process)
    return found


def _read(pid: int) -> Process | None:
    """From `/proc/<pid>/stat` (proc(5)); None for one that has ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # One whose first thread has ended lives on in its others.
    if fields[0] in _GONE and int(fields[17]) <= 1:
        return None
    return Process(pid, int(fields[19]), int(fields[1]), has_terminal=fields[4] != "0")


def _is_alive(process: Process) -> bool:
    with contextlib.suppress(OSError, ValueError, IndexError):
        now = _read(process.pid)
        return now is not None and now.start_ticks == process.start_ticks
    return False


def _namespace_of(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def _send(process: Process, numbers: Iterable[int]) -> None:
    """Raises PermissionError where that is not allowed; nothing for one that has ended."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if _is_alive(process):
            for number in (0, *numbers):
                signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)
