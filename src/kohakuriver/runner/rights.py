"""What this process must be allowed to do so that tasks can run: asked once, at the start.

Without these rights each task would begin and then fail, since its output stands in the engine's own files.
"""

import os
import resource
from pathlib import Path

from kohakuriver.models.errors import InvalidInput

_STATUS = Path("/proc/self/status")
_NEEDED = {
    0: ("CAP_CHOWN", "give files to the user of a task"),
    1: ("CAP_DAC_OVERRIDE", "read the output that the engine keeps of containers"),
    21: ("CAP_SYS_ADMIN", "mount folders for tasks and reach into their networks"),
}
"""By their numbers in the kernel's sets."""
_SYS_RESOURCE = 24


def check_rights(status: Path = _STATUS) -> None:
    """Raise InvalidInput that says what is missing, and how to have it."""
    held = _effective(status)
    lacking = [needed for number, needed in _NEEDED.items() if not held >> number & 1]
    if not lacking:
        return
    listed = "; ".join(f"{name}, to {purpose}" for name, purpose in lacking)
    who = "it is not root" if os.geteuid() else "its rights were reduced"
    raise InvalidInput(
        f"this runner cannot run tasks, because {who} and lacks {listed}. Start it as root "
        "(sudo, or a service made by `kohakuriver init service`); the right to use Docker is not enough"
    )


def locked_memory_limit(status: Path = _STATUS) -> int:
    """Bytes that a workload may lock at most; -1: no limit.

    The engine of this machine runs with rights like this process's. Without CAP_SYS_RESOURCE it cannot give
    a container more than it has itself, and one that is asked for more does not start.
    """
    may_raise = _effective(status) >> _SYS_RESOURCE & 1
    return -1 if may_raise else resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]


def _effective(status: Path) -> int:
    for line in status.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return int(value, 16)
    return 0
