"""What an engine may raise beyond the errors that all share, and what each means for the work.

It cannot be done, it can be done elsewhere, or it can be done later.
"""

import errno
from pathlib import Path

from kohakuriver.models.errors import EngineFault, KohakuRiverError, Unavailable

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
# A network file system whose server is unreachable, or a disk that was set read-only until somebody looks.
_UNAVAILABLE = frozenset(
    (
        errno.EIO,
        errno.ESTALE,
        errno.EROFS,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENOTCONN,
    )
)


class NodeFault(EngineFault):
    """The node's own doing and not the task's: another node may well do the same work."""


class LostByEngine(EngineFault):
    """The engine lost the workload while it started it; whether the command has run is not known."""


class RegistryUnavailable(EngineFault):
    """A registry did not give the image in the time there was; another try later may fare better."""


class StorageUnavailable(Unavailable):
    """Storage takes nothing now. What was to be stored is kept, and goes on once the storage does."""


class NoDiskSpace(StorageUnavailable):
    """The storage is full."""


class EngineFull(EngineFault):
    """The engine's own storage is full, and what was asked of it has not happened."""


def storage_fault(what: str, path: Path, error: OSError) -> KohakuRiverError:
    """Make the error of a failed write to `path`; `what` names the thing that was to be stored."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return NoDiskSpace(f"{what} cannot be written to {path} ({reason}); it goes on once there is room")
    if error.errno in _UNAVAILABLE:
        return StorageUnavailable(f"{what} cannot be written to {path} ({reason}); it is tried again")
    return NodeFault(f"{what} cannot be written to {path} ({reason})")


def no_disk_space_sentence(what: str, error: KohakuRiverError) -> str:
    """Of an engine that said that its disk is full when it was to take in an image."""
    return (
        f"the Docker engine of this node has no room on its disk for {what} ({error}); "
        "make some (docker system df shows what uses it)"
    )


def says_broken(text: str) -> bool:
    """Tell whether an engine's message means that a disk takes nothing or gives errors."""
    return "read-only file system" in text.lower() or "input/output error" in text.lower()


def says_full(text: str) -> bool:
    """Tell whether an engine's message means that a disk is full."""
    return "no space left on device" in text.lower() or "disk quota exceeded" in text.lower()
