"""Processes of this machine, found by environment, arguments or cgroup, and ended.

A number by itself says little, since another process can get it: what is remembered is kept with the time at
which the process began.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_STAT_STATE, _STAT_BEGAN = 0, 19
"""Fields of /proc/<pid>/stat, counted from behind the program's name in parentheses."""


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def began_at(pid: int) -> int | None:
    """When the process began, in clock ticks since the machine started; None if it has ended."""
    fields = _stat(pid)
    return None if fields is None or fields[_STAT_STATE] in "ZX" else int(fields[_STAT_BEGAN])


def is_running(pid: int) -> bool:
    """Tell whether it runs; one that ended and waits to be reaped does not."""
    return began_at(pid) is not None


def processes_naming(text: str) -> list[int]:
    """Processes with the text in their arguments: containerd and its shims name the daemon's folder."""
    return list(_with("cmdline", text.encode()))


def processes_marked(variable: str, value: str) -> list[int]:
    """Processes that were started with that environment variable, or by one that was."""
    entry = f"{variable}={value}\0".encode()
    return list(_with("environ", entry))


def _with(file_name: str, text: bytes) -> Iterator[int]:
    for file in Path("/proc").glob(f"[0-9]*/{file_name}"):
        with contextlib.suppress(OSError):
            if text in file.read_bytes():
                yield int(file.parent.name)


def processes_in(cgroups: Iterable[Path]) -> list[int]:
    """Processes in the cgroups and below them."""
    found: set[int] = set()
    for cgroup in cgroups:
        for folder in _with_those_below(cgroup):
            with contextlib.suppress(OSError):
                found.update(int(pid) for pid in (folder / "cgroup.procs").read_text().split())
    return sorted(found)


def _with_those_below(cgroup: Path) -> list[Path]:
    """The innermost first. Any of them may go while this looks."""
    return [Path(folder) for folder, _, _ in os.walk(cgroup, topdown=False)]


def kill_until_none(find: Callable[[], Iterable[int]], what: str, seconds: float = 20) -> None:
    """Kill what `find` gives until it gives none that runs; ends with TimeoutError naming `what`."""

    def running() -> bool:
        pids = [pid for pid in find() if pid != os.getpid() and is_running(pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(pids)

    wait_until(lambda: not running(), seconds, f"the end of {what}")


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Raises TimeoutError when the condition is not true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.03)


def cgroups_named(name: str) -> list[Path]:
    """The cgroup in each hierarchy (one in cgroup v2); `*` in the name stands for anything."""
    root = Path("/sys/fs/cgroup")
    return [path for path in (*root.glob(f"*/{name}"), *root.glob(name)) if path.is_dir()]


def remove_cgroups(cgroups: Iterable[Path], seconds: float = 10) -> None:
    """Remove them and those below; a process that is just ending may hold one for a moment."""
    left = list(cgroups)

    def gone() -> bool:
        for cgroup in left:
            for folder in _with_those_below(cgroup):
                with contextlib.suppress(OSError):
                    folder.rmdir()
        return not any(cgroup.exists() for cgroup in left)

    wait_until(gone, seconds, f"cgroups to be empty: {', '.join(map(str, left))}")
