"""Environment tarballs in a folder: which there are, whether one is whole, and how it is sent to an engine.

A tarball comes from shared storage, where anybody may have put it. So it is opened without following links,
its index is read before the engine sees it, and the names that it carries inside are left out on the way: an
environment's tarball can never move another image's tag. An engine unpacks what it gets, so no member may
take the place of another by another spelling or by way of a link.
"""

import asyncio
import json
import os
import stat
import tarfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kohakuriver.files.strict_tar import StrictHeader
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.names import parse_tarball_name

_BLOCK = 512
_MAX_INDEX_BYTES = 4 << 20
_MAX_MEMBERS = 100_000
_NAMES_IN_LAYOUT = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_CHUNK_BYTES = 1 << 20
_LEAST_HOLE = 1 << 16


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
    `has_holes`: whether it takes less room than it is long.
    """

    def __init__(self, path: Path) -> None:
        """Open and check; raises BrokenTarball or OSError."""
        # Without O_NONBLOCK, a named pipe would hold us up for ever.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._file = os.open(path, flags)
        try:
            size = _regular_size(self._file)
            self.has_holes = os.fstat(self._file).st_blocks * 512 + _LEAST_HOLE <= size
            self._pieces, self.names = _pieces_without_names(self._file, size)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._file)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The archive as the engine is to get it."""
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
    stated = entry.get("RepoTags")
    names = tuple(map(str, stated)) if isinstance(stated, list) else ()
    replaced = [(index, json.dumps([entry | {"RepoTags": None}]).encode())]
    layout = members.get("index.json")
    if layout is not None:
        replaced.append((layout, _layout_without_names(file, layout)))
    return _pieces(replaced, size), names


def _pieces(replaced: list[tuple[tarfile.TarInfo, bytes]], size: int) -> list[_Piece]:
    """The file with other content for some of its members."""
    pieces, at = [], 0
    for member, content in sorted(replaced, key=lambda pair: pair[0].offset):
        pieces += [_Piece(at, member.offset), _Piece(0, 0, _member(member.name, content))]
        at = _end_of(member)
    return [*pieces, _Piece(at, size)]


def _layout_without_names(file: int, layout: tarfile.TarInfo) -> bytes:
    """The index of newer engines (OCI image layout), which says names in annotations."""
    if layout.size > _MAX_INDEX_BYTES:
        raise BrokenTarball("its index of images (index.json) is too large")
    try:
        document = json.loads(os.pread(file, layout.size, layout.offset_data))
        for part in (document, *document["manifests"]):
            for name in _NAMES_IN_LAYOUT:
                (part.get("annotations") or {}).pop(name, None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenTarball("its index of images (index.json) cannot be read") from error
    return json.dumps(document).encode()


def _members(file: int, size: int) -> dict[str, tarfile.TarInfo]:
    """All members by name; one whose content goes past the end of the file is an error."""
    members: dict[str, tarfile.TarInfo] = {}
    try:
        # The descriptor stays ours: tarfile gets a copy that it may close.
        with (
            os.fdopen(os.dup(file), "rb") as copy,
            tarfile.open(fileobj=copy, mode="r:", tarinfo=StrictHeader) as archive,
        ):
            for member in archive:
                _check(member, members, size)
                _check_place(member, members)
                members[member.name] = member
    except BrokenTarball:
        raise
    except (tarfile.TarError, ValueError, IndexError, OverflowError) as error:
        raise BrokenTarball(f"it is no tar archive or cut off ({error})") from error
    # Two empty blocks end an archive; tarfile does not miss them.
    if members and max(map(_end_of, members.values())) + 2 * _BLOCK > size:
        raise BrokenTarball("it is cut off")
    return members


def _check(member: tarfile.TarInfo, before: Mapping[str, tarfile.TarInfo], size: int) -> None:
    if member.name in before or len(before) > _MAX_MEMBERS:
        raise BrokenTarball(f"it holds {member.name[:80]!r} twice, or too many files")
    if member.size < 0 or (member.offset_data + member.size > size and member.isreg()):
        raise BrokenTarball("it is cut off")


def _check_place(member: tarfile.TarInfo, before: dict[str, tarfile.TarInfo]) -> None:
    """Raise where unpacking it would write elsewhere than its name says."""
    path = PurePosixPath(member.name)
    is_plain = str(path) == member.name and not path.is_absolute() and ".." not in path.parts
    above = (before.get(str(parent)) for parent in path.parents)
    if not is_plain or any(found is not None and not found.isdir() for found in above):
        raise BrokenTarball(f"it holds a file of the odd name {member.name[:80]!r}")


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
