"""What an OSError about a user's path is to the user: an error of ours, with a sentence."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from kohakuriver.models.errors import (
    Conflict,
    Denied,
    EngineFault,
    InvalidInput,
    KohakuRiverError,
    NoCapacity,
    NotFound,
    Unavailable,
)

OLD_KERNEL = (
    "the kernel of this machine lacks openat2, without which no file of a workload can be opened safely; "
    "it needs Linux 5.6 or newer"
)
_FAULTS: dict[int, tuple[type[KohakuRiverError], str]] = {
    errno.ENOENT: (NotFound, "there is no {path}"),
    errno.EEXIST: (Conflict, "{path} exists already"),
    errno.ENOTDIR: (Conflict, "{path} is not a folder, or a part of it is none"),
    errno.EISDIR: (Conflict, "{path} is a folder"),
    errno.ENOTEMPTY: (Conflict, "{path} is a folder with something in it"),
    errno.ELOOP: (InvalidInput, "{path} goes through links that lead in a circle or into the kernel"),
    errno.ENAMETOOLONG: (InvalidInput, "{path} is longer than a path or a name may be"),
    errno.EINVAL: (InvalidInput, "{path} cannot be used in this way"),
    errno.EXDEV: (Conflict, "{path} lies on another file system; copy it, then delete the original"),
    errno.EBUSY: (Conflict, "{path} is a mount of its own, so it can be neither replaced nor removed"),
    errno.EROFS: (Conflict, "{path} lies on a file system that is read-only"),
    errno.ETXTBSY: (Conflict, "{path} is a program that runs now"),
    errno.EACCES: (Denied, "the runner may not do that with {path}"),
    errno.EPERM: (Denied, "the file system does not permit that with {path}"),
    errno.ENOSPC: (NoCapacity, "there is no room left where {path} lies; delete something first"),
    errno.EDQUOT: (NoCapacity, "the quota is used up where {path} lies; delete something first"),
    errno.EFBIG: (NoCapacity, "{path} would become larger than its file system takes"),
    errno.EMFILE: (Unavailable, "too many files are open on the node; try {path} again later"),
    errno.ENFILE: (Unavailable, "too many files are open on the node; try {path} again later"),
    errno.ENOSYS: (Unavailable, OLD_KERNEL),
}


@contextmanager
def faults_about(path: bytes) -> Iterator[None]:
    """Turn an OSError of the body into the error that it means for this path."""
    try:
        yield
    except OSError as error:
        raise fault_of(error, path) from error


def fault_of(error: OSError, path: bytes) -> KohakuRiverError:
    kind, sentence = _FAULTS.get(error.errno or 0, (EngineFault, "{path} cannot be used: " + str(error)))
    return kind(sentence.replace("{path}", shown(path)))


def shown(path: bytes) -> str:
    """A path as text for people; what is not UTF-8 becomes U+FFFD."""
    return path.decode("utf-8", "replace")
