"""Mounts as users write them, `host:container[:ro]`, read once and checked here for host and runner alike."""

import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath

from kohakuriver.models.errors import InvalidInput

_RESERVED = ("/", "/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
_UNSAFE = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories: control characters, lone surrogates (no UTF-8 holds them), line ends."""
_MAX_PATH_BYTES = 4095


@dataclass(frozen=True, slots=True)
class Mount:
    """A path of the node that appears inside a container; both paths are absolute and normal."""

    source: str
    destination: str
    read_only: bool = False

    def __str__(self) -> str:
        return f"{self.source}:{self.destination}" + (":ro" if self.read_only else "")


def parse_mount(text: str) -> Mount:
    """Read `host:container[:ro|:rw]`; raises InvalidInput that says what is wrong with it.

    A comma, colon, control character or `..` in a path is refused: each has been a way to smuggle
    something past an engine's own parser.
    """
    parts = text.split(":")
    if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
        raise InvalidInput(f"mount {text[:200]!r} is not of the form host:container or host:container:ro")
    source, destination = (_checked_path(text, part) for part in parts[:2])
    if destination in _RESERVED or destination.startswith(("/proc/", "/sys/", "/dev/")):
        raise InvalidInput(f"mount {text[:200]!r} would cover {destination}, which belongs to the system")
    return Mount(source, destination, read_only=len(parts) == 3 and parts[2] == "ro")


def _checked_path(mount: str, path: str) -> str:
    if not path.startswith("/"):
        raise InvalidInput(f"mount {mount[:200]!r}: {path[:100]!r} must be an absolute path")
    if "," in path or any(unicodedata.category(char) in _UNSAFE for char in path):
        raise InvalidInput(f"mount {mount[:200]!r}: a path must hold no comma and no control character")
    if len(path.encode()) > _MAX_PATH_BYTES or ".." in PurePosixPath(path).parts:
        raise InvalidInput(f"mount {mount[:200]!r}: a path must hold no '..' and at most 4095 bytes")
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
