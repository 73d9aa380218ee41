"""The archive of a backup: a gzipped tar of exactly three plain files, in this order, and nothing else.

`tar -tzf` lists one. It is read by a reader of our own, which knows only regular files under the three
names: links, devices, other paths, a second file of a name and extended headers are refused at their header,
and no more is unpacked than the manifest declares and the disk has room for.
"""

import gzip
import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from kohakuriver.models.errors import InvalidInput, Unavailable

FORMAT = 1
MANIFEST_NAME = "manifest.json"
DATABASE_NAME = "kohakuriver.db"
KEY_NAME = "host_identity.key"
_SMALL_BYTES = 64 << 10
"""No manifest and no key is larger."""
_SPARE_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20
_BLOCK_BYTES = 512
_ZEROS = bytes(_BLOCK_BYTES)
_GZIP_LEVEL = 1
"""A database shrinks to about a tenth at the lowest level; higher ones take much longer for little."""


class ArchivedFile(msgspec.Struct, frozen=True):
    name: str
    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds, and of what. `made_at`: aware UTC, ISO 8601."""

    format: int
    program_version: str
    schema: str
    cluster_id: str
    made_at: str
    files: tuple[ArchivedFile, ...]


def describe_file(path: Path) -> ArchivedFile:
    """Measure a file under the name that it has."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
        return ArchivedFile(path.name, file.tell(), digest.hexdigest())


def write_archive(target: Path, manifest: Manifest, folder: Path) -> None:
    """Write the manifest and its files, from the folder, to a new file (0600), durable on return."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as raw:
        with gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as stream:
            text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
            _write_head(stream, MANIFEST_NAME, len(text))
            stream.write(text + bytes(-len(text) % _BLOCK_BYTES))
            for entry in manifest.files:
                _write_head(stream, entry.name, entry.size_bytes)
                with (folder / entry.name).open("rb") as file:
                    while chunk := file.read(_CHUNK_BYTES):
                        stream.write(chunk)
                stream.write(bytes(-entry.size_bytes % _BLOCK_BYTES))
            stream.write(_ZEROS * 2)
        raw.flush()
        os.fsync(raw.fileno())


def _write_head(stream: gzip.GzipFile, name: str, size_bytes: int) -> None:
    head = tarfile.TarInfo(name)
    head.size, head.mode = size_bytes, 0o600
    stream.write(head.tobuf(tarfile.GNU_FORMAT))


def unpack_archive(archive: Path, folder: Path) -> Manifest:
    """Unpack into an empty folder and return the manifest, with sizes and hashes found right.

    Raises InvalidInput for anything that `write_archive` does not write, Unavailable without room for it.
    """
    with _opened(archive) as stream:
        size_bytes = _read_head(stream, MANIFEST_NAME)
        if size_bytes > _SMALL_BYTES:
            raise InvalidInput(f"{archive} is no backup: its manifest is too large")
        manifest = _read_manifest(archive, _read_exactly(stream, size_bytes))
        _skip_padding(stream, size_bytes)
        _check_room(folder, manifest)
        for entry in manifest.files:
            if _read_head(stream, entry.name) != entry.size_bytes:
                raise InvalidInput(
                    f"{archive} is damaged: {entry.name} has another size than its manifest says"
                )
            _unpack_file(stream, folder / entry.name, entry)
        if _read_exactly(stream, 2 * _BLOCK_BYTES) != _ZEROS * 2 or stream.read(1):
            raise InvalidInput(f"{archive} is no backup: it holds more than its manifest says")
    return manifest


@contextmanager
def _opened(archive: Path) -> Iterator[gzip.GzipFile]:
    try:
        with archive.open("rb") as raw, gzip.GzipFile(fileobj=raw) as stream:
            yield stream
    except (gzip.BadGzipFile, EOFError, zlib.error, tarfile.TarError) as error:
        raise InvalidInput(f"{archive} is damaged, or no backup of a host: {error}") from error
    except OSError as error:
        raise Unavailable(f"the backup cannot be read: {error}") from error


def _read_manifest(archive: Path, text: bytes) -> Manifest:
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"{archive} is no backup: its manifest cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise InvalidInput(f"{archive} has format {manifest.format}; this program reads {FORMAT}")
    if [entry.name for entry in manifest.files] != [DATABASE_NAME, KEY_NAME]:
        raise InvalidInput(f"{archive} is no backup: its manifest names other files than a backup has")
    if min(entry.size_bytes for entry in manifest.files) < 0 or manifest.files[1].size_bytes > _SMALL_BYTES:
        raise InvalidInput(f"{archive} is no backup: a size in its manifest cannot be")
    return manifest


def _check_room(folder: Path, manifest: Manifest) -> None:
    figures = os.statvfs(folder)
    free = figures.f_bavail * figures.f_frsize
    needed = sum(entry.size_bytes for entry in manifest.files) + _SPARE_BYTES
    if free < needed:
        raise Unavailable(
            f"unpacked, the backup needs {needed >> 20} MiB; {folder.parent} has {free >> 20} MiB free"
        )


def _read_head(stream: BinaryIO | gzip.GzipFile, expected: str) -> int:
    """Return the size of the next file, which must be the expected one."""
    head = tarfile.TarInfo.frombuf(_read_exactly(stream, _BLOCK_BYTES), "utf-8", "surrogateescape")
    if head.type != tarfile.REGTYPE or head.name != expected or head.size < 0:
        raise InvalidInput(f"this is no backup: {head.name[:80]!r} stands where {expected} must be")
    return head.size


def _unpack_file(stream: gzip.GzipFile, path: Path, entry: ArchivedFile) -> None:
    digest, missing = hashlib.sha256(), entry.size_bytes
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while missing:
            chunk = _read_exactly(stream, min(_CHUNK_BYTES, missing))
            digest.update(chunk)
            file.write(chunk)
            missing -= len(chunk)
        file.flush()
        os.fsync(file.fileno())
    _skip_padding(stream, entry.size_bytes)
    if digest.hexdigest() != entry.sha256:
        raise InvalidInput(f"the backup is damaged: {entry.name} is not what its manifest says")


def _skip_padding(stream: gzip.GzipFile, size_bytes: int) -> None:
    _read_exactly(stream, -size_bytes % _BLOCK_BYTES)


def _read_exactly(stream: BinaryIO | gzip.GzipFile, size_bytes: int) -> bytes:
    data = stream.read(size_bytes)
    if len(data) < size_bytes:
        raise EOFError("it ends too early")
    return data
