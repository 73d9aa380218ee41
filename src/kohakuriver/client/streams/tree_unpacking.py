"""A tar stream of somebody else's making unpacked on this machine, below one path and nowhere else.

Rules: folders are walked by descriptors and no link is ever followed, so a link may point anywhere and
nothing is written through it; names that are absolute or lead upwards end the copy; devices are not made,
and set-user-id bits not given. A file takes its name once it is complete.
"""

import contextlib
import errno
import os
import secrets
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from kohakuriver.client.streams.tar_source import TarSource, open_archive
from kohakuriver.files.sparse import SparseWriter
from kohakuriver.models.errors import Conflict, EngineFault

_PIECE_BYTES = 1 << 18
_BROKEN = (tarfile.TarError, ValueError, IndexError, OverflowError)
"""What `tarfile` raises for headers that make no sense."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_BITS = 0o777
_FOLDER_BITS = 0o3777

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _FolderFacts:
    """What a folder gets once nothing is put into it any more."""

    parts: Parts
    mode: int
    modified_ns: int


@dataclass(slots=True)
class TreeUnpacking:
    """`target` is what the top entry of the stream becomes; its parent must be there.

    `skipped` is called for devices and for what this version does not know.
    """

    target: str
    skipped: Callable[[str], None]
    unpacked_bytes: int = 0
    _root: int = -1
    _folders: list[_FolderFacts] = field(default_factory=list)
    _held: tuple[Parts, int] | None = None

    def unpack(self, pieces: Iterator[bytes]) -> None:
        """Take all of a stream whose names begin with one and the same word."""
        parent, name = os.path.split(self.target)
        source = TarSource(pieces)
        with self._faults(self.target):
            self._root = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._unpack_all(source, name)
            self._finish_folders()
        finally:
            self._let_go()
            os.close(self._root)
        source.drain()

    def _unpack_all(self, source: TarSource, top: str) -> None:
        first: str | None = None
        try:
            with open_archive(source) as archive:
                for member in archive:
                    parts = _parts_of(member.name)
                    first = parts[0] if first is None else first
                    self._take(archive, member, (top, *_below(parts, first)), first)
                    archive.members = []  # type: ignore[attr-defined]  # or it keeps all of them
        except _BROKEN as error:
            raise _no_tar(error) from error

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo, parts: Parts, first: str) -> None:
        with self._faults("/".join(parts)):
            if member.isdir():
                self._make_folder(member, parts)
            elif member.issym():
                self._make_link(member, parts)
            elif member.islnk():
                self._make_hard_link(parts, (parts[0], *_below(_parts_of(member.linkname), first)))
            elif member.isfile():
                content = archive.extractfile(member)
                if content is not None:
                    self._write_file(content, member, parts)
            elif member.isfifo():
                self._make_fifo(member, parts)
            else:
                self.skipped("/".join(parts))

    def _make_folder(self, member: tarfile.TarInfo, parts: Parts) -> None:
        parent = self._folder(parts[:-1])
        with contextlib.suppress(FileExistsError):
            os.mkdir(parts[-1], 0o700, dir_fd=parent)
        facts = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(facts.st_mode):
            raise Conflict(f"{'/'.join(parts)} is here already and is no folder; move it away first")
        if facts.st_mode & 0o700 != 0o700:  # opened to us for the time of the copy
            os.chmod(parts[-1], 0o700, dir_fd=parent)
        self._folders.append(_FolderFacts(parts, member.mode & _FOLDER_BITS, _modified_ns(member)))

    def _make_link(self, member: tarfile.TarInfo, parts: Parts) -> None:
        parent = self._cleared(parts)
        os.symlink(member.linkname, parts[-1], dir_fd=parent)
        moment = _modified_ns(member)
        os.utime(parts[-1], ns=(moment, moment), dir_fd=parent, follow_symlinks=False)

    def _make_hard_link(self, parts: Parts, target: Parts) -> None:
        if parts == target:
            return
        source = os.dup(self._folder(target[:-1]))
        try:
            parent = self._cleared(parts)
            os.link(target[-1], parts[-1], src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _make_fifo(self, member: tarfile.TarInfo, parts: Parts) -> None:
        parent = self._cleared(parts)
        os.mkfifo(parts[-1], member.mode & _FILE_BITS, dir_fd=parent)
        moment = _modified_ns(member)
        os.utime(parts[-1], ns=(moment, moment), dir_fd=parent, follow_symlinks=False)

    def _write_file(self, content: IO[bytes], member: tarfile.TarInfo, parts: Parts) -> None:
        parent = self._folder(parts[:-1])
        draft = f".kohakuriver-{secrets.token_hex(8)}"
        file = os.open(draft, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            try:
                writer = SparseWriter(file)
                while piece := content.read(_PIECE_BYTES):
                    writer.write(piece)
                    self.unpacked_bytes += len(piece)
                writer.finish()
                os.fchmod(file, member.mode & _FILE_BITS)
                moment = _modified_ns(member)
                os.utime(file, ns=(moment, moment))
            finally:
                os.close(file)
            os.rename(draft, parts[-1], src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=parent)
            raise

    def _cleared(self, parts: Parts) -> int:
        """The folder for an entry, in which nothing has its name any more; a folder there is a fault."""
        parent = self._folder(parts[:-1])
        with contextlib.suppress(FileNotFoundError):
            os.unlink(parts[-1], dir_fd=parent)
        return parent

    def _folder(self, parts: Parts) -> int:
        """A descriptor of the folder, made where it is missing; it is held until another one is asked for."""
        if not parts:
            return self._root
        if self._held is not None and self._held[0] == parts:
            return self._held[1]
        self._let_go()
        here = os.dup(self._root)
        for name in parts:
            try:
                below = _open_or_make(here, name)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                raise Conflict(
                    f"{'/'.join(parts)} leads through {name}, which is a link or no folder here; "
                    "nothing is written through it"
                ) from error
            finally:
                os.close(here)
            here = below
        self._held = (parts, here)
        return here

    def _let_go(self) -> None:
        if self._held is not None:
            os.close(self._held[1])
            self._held = None

    def _finish_folders(self) -> None:
        """The innermost first, so that a folder's own time is the last thing that changes in it."""
        for facts in sorted(self._folders, key=lambda facts: -len(facts.parts)):
            with self._faults("/".join(facts.parts)):
                folder = self._folder(facts.parts)
                os.fchmod(folder, facts.mode)
                os.utime(folder, ns=(facts.modified_ns, facts.modified_ns))

    @contextlib.contextmanager
    def _faults(self, path: str) -> Iterator[None]:
        try:
            yield
        except OverflowError as error:
            raise EngineFault(f"the copy holds a time or a size of {path} that cannot be") from error
        except OSError as error:
            raise Conflict(f"{path} cannot be written here: {error.strerror}") from error


def only_file(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the content of the file that is the one entry of a tar stream."""
    source = TarSource(pieces)
    try:
        with open_archive(source) as archive:
            member = archive.next()
            content = archive.extractfile(member) if member is not None and member.isfile() else None
            if content is None:
                raise EngineFault("what came is no file")
            while piece := content.read(_PIECE_BYTES):
                yield piece
    except _BROKEN as error:
        raise _no_tar(error) from error
    source.drain()


def _no_tar(error: Exception) -> EngineFault:
    return EngineFault(f"what came is no tar stream, or not all of one: {error}")


def _parts_of(name: str) -> Parts:
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or not parts or "\0" in name:
        raise EngineFault(f"the copy holds the name {name!r}, which leads elsewhere; it was ended there")
    return parts


def _below(parts: Parts, first: str) -> Parts:
    if parts[0] != first:
        raise EngineFault(f"the copy of {first!r} holds {'/'.join(parts)!r} beside it; it was ended there")
    return parts[1:]


def _open_or_make(parent: int, name: str) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=parent)
        return os.open(name, _FOLDER, dir_fd=parent)


def _modified_ns(member: tarfile.TarInfo) -> int:
    """The time in the header's own digits: a float would lose the last of them."""
    text = member.pax_headers.get("mtime", "")
    whole, _, fraction = text.lstrip("-").partition(".")
    if not (whole.isascii() and whole.isdigit() and (not fraction or fraction.isdigit())):
        return int(member.mtime) * 10**9
    moment = int(whole) * 10**9 + int(fraction[:9].ljust(9, "0"))
    return -moment if text.startswith("-") else moment
