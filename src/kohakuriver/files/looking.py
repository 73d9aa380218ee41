"""Folders listed, files looked at and read, in a workload's file system. Blocking.

A folder of any size costs one page of memory. A file is opened for reading only once it is known to be a
regular one: opening a FIFO or a device can wait for ever or do something.
"""

import base64
import binascii
import codecs
import heapq
import os
import stat
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime

from kohakuriver.files.faults import faults_about, shown
from kohakuriver.files.records import (
    MAX_PAGE,
    MAX_READ_BYTES,
    Encoding,
    FileContent,
    FileDetails,
    FileEntry,
    FilePage,
    FileType,
)
from kohakuriver.files.rooted_fs import RootedFs, path_bytes
from kohakuriver.models.errors import Conflict, InvalidInput

_TOLD_BY_BYTES = 8192
"""By so much of its beginning a file is taken for text or not."""
_TYPES = {
    stat.S_IFREG: FileType.FILE,
    stat.S_IFDIR: FileType.DIRECTORY,
    stat.S_IFLNK: FileType.SYMLINK,
    stat.S_IFIFO: FileType.FIFO,
    stat.S_IFSOCK: FileType.SOCKET,
    stat.S_IFCHR: FileType.CHARACTER_DEVICE,
    stat.S_IFBLK: FileType.BLOCK_DEVICE,
}
_TYPE_WORDS = {
    FileType.DIRECTORY: "a folder",
    FileType.SYMLINK: "a link",
    FileType.FIFO: "a FIFO",
    FileType.SOCKET: "a socket",
    FileType.CHARACTER_DEVICE: "a device",
    FileType.BLOCK_DEVICE: "a device",
}


def list_folder(
    fs: RootedFs,
    path: str,
    cursor: str | None = None,
    limit: int = MAX_PAGE,
    *,
    show_hidden: bool = True,
) -> FilePage:
    """Return the entries after the cursor, which is the `next_cursor` of the page before.

    `show_hidden` False: without those whose names begin with a dot.
    """
    raw = path_bytes(path)
    after = b"" if cursor is None else _read_cursor(cursor)
    with fs.opened(raw, os.O_DIRECTORY) as found, reopened(found, raw, os.O_DIRECTORY) as folder:
        page = _page(folder, raw, after, min(limit, MAX_PAGE), _Counted(show_hidden))
    return replace(page, entries=[_as_inside(fs, entry) for entry in page.entries])


def _page(folder: int, path: bytes, after: bytes, limit: int, counted: "_Counted") -> FilePage:
    with faults_about(path):
        names = heapq.nsmallest(limit + 1, (name for name in counted.names(folder) if name > after))
        here = [entry for name in names[:limit] if (entry := _entry_in(folder, path, name)) is not None]
    more = len(names) > limit
    next_cursor = base64.urlsafe_b64encode(names[limit - 1]).decode() if more else None
    return FilePage(shown(path), _parent(path), here, counted.total, next_cursor)


def _parent(path: bytes) -> str | None:
    plain = path.rstrip(b"/")
    return shown(plain.rpartition(b"/")[0] or b"/") if plain else None


def stat_file(fs: RootedFs, path: str) -> FileDetails:
    """Tell about what is at a path; of a link about itself."""
    raw = path_bytes(path)
    with fs.opened(raw, os.O_NOFOLLOW) as file, faults_about(raw):
        target = os.readlink(b"", dir_fd=file) if stat.S_ISLNK(os.fstat(file).st_mode) else None
        name = raw.rstrip(b"/").rpartition(b"/")[2] or b"/"
        entry = _as_inside(fs, _entry(name, raw, os.fstat(file), target))
        is_readable = entry.type in (FileType.FILE, FileType.DIRECTORY)
        is_fixed = bool(os.fstatvfs(file).f_flag & os.ST_RDONLY)
        is_binary = _is_binary(file, raw) if entry.type is FileType.FILE else None
    return FileDetails(
        **{field.name: getattr(entry, field.name) for field in fields(entry)},
        owner=str(entry.uid),
        is_readable=is_readable,
        is_writable=is_readable and not is_fixed,
        is_binary=is_binary,
    )


def _is_binary(found: int, path: bytes) -> bool:
    with reopened(found, path, os.O_NONBLOCK) as file:
        begin = os.read(file, _TOLD_BY_BYTES)
    try:
        return "\0" in codecs.getincrementaldecoder("utf-8")().decode(begin)
    except UnicodeDecodeError:
        return True


def read_file(
    fs: RootedFs, path: str, encoding: Encoding = Encoding.UTF_8, limit: int = MAX_READ_BYTES
) -> FileContent:
    """Return at most `limit` bytes of a regular file; as text, up to the last whole character of them."""
    raw = path_bytes(path)
    with fs.opened(raw) as found:
        refuse_all_but_files(os.fstat(found), raw)
        with reopened(found, raw, os.O_NONBLOCK) as file, faults_about(raw):
            content = _read(file, min(limit, MAX_READ_BYTES))
            size = max(os.fstat(file).st_size, len(content))
    text = _as_text(content, raw) if encoding is Encoding.UTF_8 else base64.b64encode(content).decode()
    return FileContent(path, text, encoding, size, size > len(content))


def refuse_all_but_files(status: os.stat_result, path: bytes) -> None:
    """Raise Conflict for what is no regular file, with what it is instead."""
    kind = type_of(status.st_mode)
    if kind is not FileType.FILE:
        raise Conflict(f"{shown(path)} is {_TYPE_WORDS[kind]}; only regular files are read and written")


class reopened:
    """Context that gives a readable descriptor of the very thing that an O_PATH descriptor stands for."""

    def __init__(self, found: int, path: bytes, flags: int) -> None:
        with faults_about(path):
            reading = os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC
            self._file = os.open(f"/proc/self/fd/{found}", flags | reading)

    def __enter__(self) -> int:
        return self._file

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def type_of(mode: int) -> FileType:
    return _TYPES[stat.S_IFMT(mode)]


class _Counted:
    def __init__(self, show_hidden: bool) -> None:
        self.total = 0
        self._show_hidden = show_hidden

    def names(self, folder: int) -> Iterator[bytes]:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if self._show_hidden or not name.startswith(b"."):
                    self.total += 1
                    yield name


def _entry_in(folder: int, path: bytes, name: bytes) -> FileEntry | None:
    """None for one that was deleted while the folder was read."""
    try:
        status = os.lstat(name, dir_fd=folder)
        target = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(status.st_mode) else None
    except FileNotFoundError:
        return None
    return _entry(name, path.rstrip(b"/") + b"/" + name, status, target)


def _entry(name: bytes, path: bytes, status: os.stat_result, target: bytes | None) -> FileEntry:
    text = shown(name)
    return FileEntry(
        name=text,
        path=shown(path),
        type=type_of(status.st_mode),
        is_dir=stat.S_ISDIR(status.st_mode),
        size=status.st_size,
        mode=f"{stat.S_IMODE(status.st_mode):04o}",
        uid=status.st_uid,
        gid=status.st_gid,
        modified_at=_moment(status.st_mtime),
        mtime=int(status.st_mtime),
        permissions=stat.filemode(status.st_mode),
        link_target=None if target is None else shown(target),
        raw_name=None if text.encode() == name else base64.b64encode(name).decode(),
    )


def _as_inside(fs: RootedFs, entry: FileEntry) -> FileEntry:
    """With its user and group as the workload knows them."""
    uid, gid = fs.ids.inside(entry.uid, entry.gid)
    return entry if (uid, gid) == (entry.uid, entry.gid) else replace(entry, uid=uid, gid=gid)


def _moment(unix_time: float) -> datetime:
    """Times that no calendar has (a file can be given any) become the nearest that one has."""
    return datetime.fromtimestamp(min(max(unix_time, -62_135_596_800.0), 253_402_300_799.0), UTC)


def _read(file: int, limit: int) -> bytes:
    pieces: list[bytes] = []
    while limit > 0 and (piece := os.read(file, min(limit, 1 << 20))):
        pieces.append(piece)
        limit -= len(piece)
    return b"".join(pieces)


def _as_text(content: bytes, path: bytes) -> str:
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(content)
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{shown(path)} is not text in UTF-8; read it with encoding=base64", field="encoding"
        ) from error


def _read_cursor(cursor: str) -> bytes:
    try:
        return base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise InvalidInput(
            "cursor: give the next_cursor of the page before, as it is", field="cursor"
        ) from error
