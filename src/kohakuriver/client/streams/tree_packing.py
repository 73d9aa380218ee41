"""A tree of this machine as a tar stream (POSIX.1-2001), made piece by piece.

Links are packed as links, names as the bytes that they are, times to the nanosecond. A file that is not
what it was said to be when its turn comes ends the stream with an error, never with filling.
"""

import io
import os
import stat
import tarfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import IO, cast

from kohakuriver.client.streams.tar_source import TarSource, open_archive
from kohakuriver.models.errors import Conflict, EngineFault, InvalidInput, NotFound
from kohakuriver.streams.sparse_tar import (
    LEAST_HOLES_BYTES,
    NAME,
    Part,
    parts_of,
    sparse_head,
    without_sparse,
)

_PIECE_BYTES = 1 << 18
_BLOCK = 512
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_RECORDS_OF_NAMES = ("path", "linkpath", "size", "hdrcharset")
"""Extended records that would have the last word over the new names."""
END = bytes(2 * _BLOCK)
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


@dataclass(slots=True)
class TreePacking:
    """`owner`: user and group that everything gets. `skipped` is called for sockets and devices."""

    owner: tuple[int, int]
    skipped: Callable[[str], None]
    packed_bytes: int = 0
    _linked: dict[tuple[int, int], str] = field(default_factory=dict)

    def pack(self, path: str, name: str, *, itself: bool = True) -> Iterator[bytes]:
        """Yield `path` and all below it as entries named `name` and below it; without `itself` the latter."""
        waiting = [(path, name)] if itself else _within(path, name)
        while waiting:
            here, called = waiting.pop()
            is_folder = yield from self._entry(here, called)
            if is_folder:
                waiting += _within(here, called)

    def pack_open_file(self, file: int, name: str) -> Iterator[bytes]:
        """Yield one entry with the content of an open file."""
        status = os.fstat(file)
        info = self._info(name, status)
        info.mode, info.size = 0o644, status.st_size
        yield from self._told(file, info, name)

    def _entry(self, path: str, name: str) -> Generator[bytes, None, bool]:
        """Yield one entry with its content; return whether there may be entries below it."""
        status = _status(path)
        info = self._header(path, name, status)
        if info is None:
            self.skipped(path)
        elif info.type == tarfile.REGTYPE:
            yield from self._file(path, info, status)
        else:
            yield _block(info)
        return stat.S_ISDIR(status.st_mode)

    def _header(self, path: str, name: str, status: os.stat_result) -> tarfile.TarInfo | None:
        kind = _TYPES.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return None
        info = self._info(name, status)
        info.type, info.mode = kind, stat.S_IMODE(status.st_mode)
        if kind == tarfile.SYMTYPE:
            info.linkname = os.readlink(path)
        elif kind == tarfile.REGTYPE:
            info.size = status.st_size
            if status.st_nlink > 1:
                first = self._linked.setdefault((status.st_dev, status.st_ino), name)
                if first != name:
                    info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
        return info

    def _info(self, name: str, status: os.stat_result) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.uid, info.gid = self.owner
        seconds, nanoseconds = divmod(abs(status.st_mtime_ns), 10**9)
        sign = "-" if status.st_mtime_ns < 0 else ""
        info.mtime = 0 if sign else seconds
        info.pax_headers = {"mtime": f"{sign}{seconds}.{nanoseconds:09d}"}
        return info

    def _file(self, path: str, info: tarfile.TarInfo, status: os.stat_result) -> Iterator[bytes]:
        try:
            file = os.open(path, _FILE)
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            now = os.fstat(file)
            if (now.st_dev, now.st_ino) != (status.st_dev, status.st_ino) or now.st_size != status.st_size:
                raise Conflict(f"{path} changed while it was copied; copy again when nothing writes to it")
            yield from self._told(file, info, path)
        finally:
            os.close(file)

    def _told(self, file: int, info: tarfile.TarInfo, path: str) -> Iterator[bytes]:
        """The entry of an open file with its content, without the holes that it has."""
        parts = parts_of(file, info.size)
        if parts is None:
            yield _block(info)
            yield from self._content(file, info.size, path)
            yield bytes(-info.size % _BLOCK)
            return
        yield sparse_head(info, parts)
        for place, length in parts:
            os.lseek(file, place, os.SEEK_SET)
            yield from self._content(file, length, path)
        yield bytes(-sum(length for _, length in parts) % _BLOCK)

    def _content(self, file: int, size: int, path: str) -> Iterator[bytes]:
        left = size
        while left:
            piece = os.read(file, min(left, _PIECE_BYTES))
            if not piece:
                raise Conflict(f"{path} became shorter while it was copied; copy it again")
            left -= len(piece)
            self.packed_bytes += len(piece)
            yield piece


def put_below(stream: IO[bytes], prefix: str) -> Iterator[bytes]:
    """Yield a tar stream of somebody else's making with every name put below `prefix`, without its end."""
    source = TarSource(iter(lambda: stream.read(_PIECE_BYTES), b""))
    try:
        with open_archive(source) as archive:
            for member in archive:
                # The library lets a placeholder win where that is a long one.
                member.name = _below(prefix, member.pax_headers.get(NAME, member.name))
                if member.islnk():
                    member.linkname = _below(prefix, member.linkname)
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    yield _block(_told_anew(member))
                else:
                    yield from _member(member, content)
                archive.members = []  # type: ignore[attr-defined]  # or it keeps all of them
        source.drain()
    except (tarfile.TarError, ValueError, IndexError, OverflowError, EngineFault) as error:
        raise InvalidInput(f"standard input is no tar stream, or not all of one: {error}") from error


def _member(member: tarfile.TarInfo, content: IO[bytes]) -> Iterator[bytes]:
    """One file of a stream with its content; of a sparse one only what is there of it."""
    parts = [(0, member.size)]
    told = _told_anew(member)
    if member.issparse():
        # The library's types say that it is bytes.
        parts = [part for part in cast("list[Part]", member.sparse) if part[1]]
        told.type = tarfile.REGTYPE
    stored = sum(length for _, length in parts)
    if member.size - stored < LEAST_HOLES_BYTES:
        parts, stored = [(0, member.size)], member.size
        yield _block(told)
    else:
        yield sparse_head(told, parts)
    # A buffer before it would refuse to move in a stream, where moving on is all that is needed.
    raw = cast("io.RawIOBase", cast("io.BufferedReader", content).raw)
    for place, length in parts:
        raw.seek(place)
        left = length
        while left and (piece := raw.read(min(_PIECE_BYTES, left))):
            left -= len(piece)
            yield piece
    yield bytes(-stored % _BLOCK)


def _told_anew(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without records of the stream that it came in, which would say otherwise."""
    kept = without_sparse(member.pax_headers).items()
    member.pax_headers = {name: value for name, value in kept if name not in _RECORDS_OF_NAMES}
    return member


def _below(prefix: str, name: str) -> str:
    if ".." in name.split("/"):
        raise InvalidInput(f"the tar stream holds the name {name!r}, which leads elsewhere")
    return f"{prefix}/{name.lstrip('/')}"


def _within(folder: str, prefix: str) -> list[tuple[str, str]]:
    """The entries of a folder as (path, name), the last one first."""
    try:
        names = sorted(os.listdir(folder), reverse=True)
    except OSError as error:
        raise _unreadable(folder, error) from error
    return [(os.path.join(folder, name), f"{prefix}/{name}") for name in names]


def _block(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _status(path: str) -> os.stat_result:
    try:
        return os.lstat(path)
    except FileNotFoundError as error:
        raise NotFound(f"there is no {path} on this machine") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> Conflict:
    return Conflict(f"{path} cannot be read: {error.strerror}")
