"""The file operations as values: what a client asks for, as it goes from host to runner and is run there.

Host and runner give and take their fields under the same names, in the query for GET and DELETE, else in
JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kohakuriver.files.changing import content_of, delete_file, make_folder, rename_file, write_file
from kohakuriver.files.looking import list_folder, read_file, stat_file
from kohakuriver.files.records import (
    MAX_PAGE,
    MAX_READ_BYTES,
    Encoding,
    FileContent,
    FileDetails,
    FileDone,
    FilePage,
)
from kohakuriver.files.rooted_fs import RootedFs
from kohakuriver.models.errors import InvalidInput


class FileRequest(Protocol):
    """Runs in a thread; raises our errors."""

    def run(self, fs: RootedFs) -> Any: ...


@dataclass(frozen=True, slots=True)
class ListFolder:
    path: str
    cursor: str | None = None
    limit: int = MAX_PAGE
    show_hidden: bool = True

    def run(self, fs: RootedFs) -> FilePage:
        limit = _within(self.limit, MAX_PAGE)
        return list_folder(fs, self.path, self.cursor, limit, show_hidden=self.show_hidden)


@dataclass(frozen=True, slots=True)
class ReadFile:
    path: str
    encoding: Encoding = Encoding.UTF_8
    limit: int = MAX_READ_BYTES

    def run(self, fs: RootedFs) -> FileContent:
        return read_file(fs, self.path, self.encoding, _within(self.limit, MAX_READ_BYTES))


@dataclass(frozen=True, slots=True)
class StatFile:
    path: str

    def run(self, fs: RootedFs) -> FileDetails:
        return stat_file(fs, self.path)


@dataclass(frozen=True, slots=True)
class WriteFile:
    path: str
    content: str
    encoding: Encoding = Encoding.UTF_8
    create_parents: bool = False

    def run(self, fs: RootedFs) -> FileDone:
        content = content_of(self.content, self.encoding)
        return write_file(fs, self.path, content, create_parents=self.create_parents)


@dataclass(frozen=True, slots=True)
class MakeFolder:
    path: str
    create_parents: bool = False

    def run(self, fs: RootedFs) -> FileDone:
        return make_folder(fs, self.path, create_parents=self.create_parents)


@dataclass(frozen=True, slots=True)
class RenameFile:
    source: str
    destination: str
    overwrite: bool = False

    def run(self, fs: RootedFs) -> FileDone:
        return rename_file(fs, self.source, self.destination, overwrite=self.overwrite)


@dataclass(frozen=True, slots=True)
class DeleteFile:
    path: str
    recursive: bool = False

    def run(self, fs: RootedFs) -> FileDone:
        return delete_file(fs, self.path, recursive=self.recursive)


@dataclass(frozen=True, slots=True)
class Operation:
    """`name` is the last word of its path in both interfaces."""

    method: str
    name: str


def operations() -> Mapping[type, Operation]:
    """Every kind of request with the call that it is."""
    return {
        ListFolder: Operation("GET", "list"),
        ReadFile: Operation("GET", "read"),
        StatFile: Operation("GET", "stat"),
        WriteFile: Operation("POST", "write"),
        MakeFolder: Operation("POST", "mkdir"),
        RenameFile: Operation("POST", "rename"),
        DeleteFile: Operation("DELETE", "delete"),
    }


def _within(limit: int, most: int) -> int:
    if not 1 <= limit <= most:
        raise InvalidInput(f"limit is a number from 1 to {most}, not {limit}", field="limit")
    return limit
