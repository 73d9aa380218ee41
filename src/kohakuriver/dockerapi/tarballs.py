"""Environment tarballs in a folder: which there are, whether one is whole, and how it is sent to an engine.

A tarball comes from shared storage, where anybody may have put it. So it is opened without following links,
its index is read before the engine sees it, and the names that it carries inside are left out on the way: an
environment's tarball can never move another image's tag.
"""

import asyncio
import json
import os
import stat
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kohakuriver.models.errors import Unavailable
from kohakuriver.models.names import parse_tarball_name

_BLOCK = 512
_MAX_INDEX_BYTES = 4 << 20
_MAX_MEMBERS = 100_000
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Tarball:
    """One version of an environment; the one with the highest time is current."""

    name: str
    unix_time: int
    path: Path
    size_bytes: int


def list_tarballs(folder: Path, name: str | None = None) -> list[Tarball]:
    """List the tarballs of one or all environments, by name and time. Links and folders are none.

    A folder that does not exist holds none; one that cannot be read is Unavailable.
    """
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                parsed = parse_tarball_name(entry.name)
                if parsed is None or (name is not None and parsed[0] != name):
                    continue
                facts = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(facts.st_mode):
                    found.append(Tarball(*parsed, Path(entry.path), facts.st_size))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unavailable(f"the folder of tarballs {folder} cannot be read: {error.strerror}") from error
    return sorted(found, key=lambda tarball: (tarball.name, tarball.unix_time))


class BrokenTarball(ValueError):
    """The file is not a whole archive of one image; says why in a few words."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A range of the file, or bytes that stand in its place."""

    start: int
    end: int
    instead: bytes | None = None


class OpenTarball:
    """A tarball that was found whole and can be sent. Opening and closing block: use a thread.

    `names`: what its image was called where it was made (`repository:tag`), as it says itself.
    """

    def __init__(self, path: Path) -> None:
        """Open and check; raises BrokenTarball or OSError."""
        # Without O_NONBLOCK, a named pipe would hold us up for ever.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._file = os.open(path, flags)
        try:
            self._pieces, self.names = _pieces_without_names(self._file, _regular_size(self._file))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._file)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The archive as the engine shall get it."""
        for piece in self._pieces:
            if piece.instead is not None:
                yield piece.instead
                continue
            at = piece.start
            while at < piece.end:
                size = min(_CHUNK_BYTES, piece.end - at)
                chunk = await asyncio.to_thread(os.pread, self._file, size, at)
                if not chunk:
                    raise BrokenTarball("it became shorter while it was read")
                yield chunk
                at += len(chunk)


def _regular_size(file: int) -> int:
    facts = os.fstat(file)
    if not stat.S_ISREG(facts.st_mode):
        raise BrokenTarball("it is not a regular file")
    return facts.st_size


def _pieces_without_names(file: int, size: int) -> tuple[list[_Piece], tuple[str, ...]]:
    """What to send, and the names that are left out of it."""
    members = _members(file, size)
    index = members.get("manifest.json")
    if index is None or index.size > _MAX_INDEX_BYTES:
        raise BrokenTarball("it holds no index of images (manifest.json); is it cut off?")
    entry = _only_image(os.pread(file, index.size, index.offset_data))
    missing = [name for name in (entry["Config"], *entry["Layers"]) if name not in members]
    if missing:
        raise BrokenTarball(f"{len(missing)} of its parts are missing; is it cut off?")
    nameless = _member("manifest.json", json.dumps([entry | {"RepoTags": None}]).encode())
    stated = entry.get("RepoTags")
    names = tuple(map(str, stated)) if isinstance(stated, list) else ()
    return [_Piece(0, index.offset), _Piece(0, 0, nameless), _Piece(_end_of(index), size)], names


def _members(file: int, size: int) -> dict[str, tarfile.TarInfo]:
    """All members by name; one whose content goes past the end of the file is an error."""
    members: dict[str, tarfile.TarInfo] = {}
    try:
        # The descriptor stays ours: tarfile gets a copy that it may close.
        with os.fdopen(os.dup(file), "rb") as copy, tarfile.open(fileobj=copy, mode="r:") as archive:
            for member in archive:
                if member.name in members or len(members) > _MAX_MEMBERS:
                    raise BrokenTarball(f"it holds {member.name[:80]!r} twice, or too many files")
                if member.offset_data + member.size > size and member.isreg():
                    raise BrokenTarball("it is cut off")
                members[member.name] = member
    except tarfile.TarError as error:
        raise BrokenTarball(f"it is no tar archive or cut off ({error})") from error
    # Two empty blocks end an archive; tarfile does not miss them.
    if members and max(map(_end_of, members.values())) + 2 * _BLOCK > size:
        raise BrokenTarball("it is cut off")
    return members


def _only_image(index: bytes) -> dict[str, Any]:
    try:
        document = json.loads(index)
    except (ValueError, RecursionError) as error:
        raise BrokenTarball("its index of images cannot be read") from error
    if not isinstance(document, list) or len(document) != 1 or not isinstance(document[0], dict):
        raise BrokenTarball("it must hold exactly one image")
    entry: dict[str, Any] = document[0]
    layers = entry.get("Layers")
    texts = [entry.get("Config"), *(layers if isinstance(layers, list) else [None])]
    if not all(isinstance(text, str) for text in texts):
        raise BrokenTarball("its index of images is incomplete")
    return entry


def _member(name: str, content: bytes) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % _BLOCK)


def _end_of(member: tarfile.TarInfo) -> int:
    return member.offset_data + member.size + (-member.size % _BLOCK)
