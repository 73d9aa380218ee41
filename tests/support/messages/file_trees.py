"""Trees of files with everything that names, links and times can be, and what is the same in two of them."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

ODD_NAMES = (
    b"plain",
    b"with space",
    b"-leading-dash",
    b"new\nline",
    b"tab\tand\\backslash",
    b"quote'\"`$(id)",
    "ümlaut-漢字".encode(),
    b"not-utf8-\xff\xfe",
    b"n" * 200,
    b".hidden",
    b"colon:name",
)
_SECONDS = 1_234_567_890


@dataclass(frozen=True)
class Facts:
    """One entry; `content` is the target of a link."""

    kind: int
    mode: int
    content: bytes
    modified_ns: int
    twins: frozenset[bytes]


def make_tree(root: Path, many: int = 0) -> None:
    """Fill a new folder: odd names, links of all sorts, empty folders, modes, times, `many` small files."""
    root.mkdir()
    raw = os.fsencode(root)
    for number, name in enumerate(ODD_NAMES):
        _write(raw + b"/" + name, name * number)
    os.mkdir(raw + b"/empty")
    os.mkdir(raw + b"/sub")
    os.mkdir(raw + b"/sub/\xf0folder")
    _write(raw + b"/sub/\xf0folder/deep", os.urandom(300_000))
    os.link(raw + b"/sub/\xf0folder/deep", raw + b"/sub/twin")
    for name, target in (
        (b"relative", b"sub/twin"),
        (b"absolute", b"/etc/passwd"),
        (b"upwards", b"../../../../etc"),
        (b"dangling", b"nothing\xff"),
        (b"to-folder", b"sub"),
        (b"long", b"x" * 300),
    ):
        os.symlink(target, raw + b"/" + name)
    os.mkfifo(raw + b"/fifo", 0o640)
    for number in range(many):
        if number % 100 == 0:
            os.mkdir(raw + b"/many-%d" % number)
        _write(raw + b"/many-%d/%d" % (number - number % 100, number), b"%d" % number)
    os.chmod(raw + b"/plain", 0o755)
    os.chmod(raw + b"/with space", 0o400)
    os.chmod(raw + b"/empty", 0o500)
    for folder, folders, files in os.walk(raw, topdown=False):
        for number, name in enumerate((*files, *folders)):
            moment = (_SECONDS + number) * 10**9
            os.utime(folder + b"/" + name, ns=(moment, moment), follow_symlinks=False)
    os.utime(raw, ns=(_SECONDS * 10**9, _SECONDS * 10**9))


def facts_of(root: Path) -> dict[bytes, Facts]:
    """Every entry by its path below the root, the root itself as b"."."""
    raw = os.fsencode(root)
    paths = [raw]
    for folder, folders, files in os.walk(raw):
        paths += [folder + b"/" + name for name in (*folders, *files)]
    status = {os.path.relpath(path, raw): os.lstat(path) for path in paths}
    twins: dict[int, set[bytes]] = {}
    for path, found in status.items():
        if stat.S_ISREG(found.st_mode):
            twins.setdefault(found.st_ino, set()).add(path)
    return {
        path: Facts(
            stat.S_IFMT(found.st_mode),
            stat.S_IMODE(found.st_mode),
            _content(raw + b"/" + path, found.st_mode),
            found.st_mtime_ns,
            frozenset(twins.get(found.st_ino, ())),
        )
        for path, found in status.items()
    }


def _write(path: bytes, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def _content(path: bytes, mode: int) -> bytes:
    if stat.S_ISLNK(mode):
        return os.readlink(path)
    if stat.S_ISREG(mode):
        with open(path, "rb") as file:
            return file.read()
    return b""
