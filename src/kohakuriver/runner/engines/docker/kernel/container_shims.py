"""The shims that stand between containers and their engine, as /proc shows them; found without the engine.

A shim has its container's id among its arguments (containerd's `-id`) and is the parent of the container's
first process. An engine in another namespace of processes has none that can be seen here.
"""

import contextlib
from pathlib import Path


def shim_of(container_id: str) -> int | None:
    """Return its process number; None if there is none. Looks at every process of the machine."""
    wanted = b"\0-id\0" + container_id.encode() + b"\0"
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if wanted in file.read_bytes():
                return int(file.parent.name)
    return None


def is_first_of(pid: int, container_id: str) -> bool:
    """Whether its parent is the container's shim; raises OSError where it cannot be seen."""
    wanted = b"\0-id\0" + container_id.encode() + b"\0"
    return wanted in Path(f"/proc/{parent_of(pid)}/cmdline").read_bytes()


def children_of(pid: int) -> list[int]:
    """Processes whose parent it is."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if parent_of(int(folder.name)) == pid:
                found.append(int(folder.name))
    return found


def parent_of(pid: int) -> int:
    """From `/proc/<pid>/stat`, where the name of the program may hold anything, parentheses too (proc(5))."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
