"""What is told about files of a workload; host, runner and clients meet in these."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

MAX_READ_BYTES = 10 << 20
MAX_WRITE_BYTES = 50 << 20
MAX_WRITE_REQUEST_BYTES = 72 << 20
"""A request with as much content in base64, and the JSON around it."""
MAX_PAGE = 1000
MAX_PATH_BYTES = 4095


class FileType(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER_DEVICE = "character_device"
    BLOCK_DEVICE = "block_device"


class Encoding(StrEnum):
    UTF_8 = "utf-8"
    BASE64 = "base64"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file, folder or link, itself and not what it points at. `mode`: permission bits in octal.

    What is not UTF-8 in a name is shown as U+FFFD; `raw_name` has then its bytes in base64. `mtime` is
    `modified_at` as Unix time, `permissions` are type and mode as `ls -l` writes them.
    """

    name: str
    path: str
    type: FileType
    is_dir: bool
    size: int
    mode: str
    uid: int
    gid: int
    modified_at: datetime
    mtime: int
    permissions: str
    link_target: str | None = None
    raw_name: str | None = None


@dataclass(frozen=True, slots=True)
class FileDetails(FileEntry):
    """What is said only of a single one. `owner`: the number of its user, as text.

    `is_readable` and `is_writable`: here, by the calls of this interface. `is_binary`: whether it begins with
    what is no text; null for what is no regular file.
    """

    owner: str = ""
    is_readable: bool = False
    is_writable: bool = False
    is_binary: bool | None = None


@dataclass(frozen=True, slots=True)
class FilePage:
    """Entries of a folder in the order of their names' bytes; `next_cursor` None: there are no more.

    `parent`: the folder that it is in; null for the root.
    """

    path: str
    parent: str | None
    entries: list[FileEntry]
    total: int
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class FileContent:
    """The beginning of a file; `truncated`: it is longer (`size` bytes) than what was asked for."""

    path: str
    content: str
    encoding: Encoding
    size: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class FileDone:
    """What was done, as a sentence, and to which path.

    `size`: of a file that was written. `source` and `destination`: of what was renamed.
    """

    message: str
    path: str
    success: bool = True
    size: int | None = None
    source: str | None = None
    destination: str | None = None
