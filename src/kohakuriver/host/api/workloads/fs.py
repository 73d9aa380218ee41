"""Files in workloads and in environments: looked at, read, written, moved and deleted.

A workload's files are reached through the runner of its node, an environment's on this machine; both run
the same operations (`kohakuriver.files`).
"""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from kohakuriver.files.records import (
    MAX_PAGE,
    MAX_PATH_BYTES,
    MAX_READ_BYTES,
    MAX_WRITE_REQUEST_BYTES,
    Encoding,
    FileContent,
    FileDetails,
    FileDone,
    FilePage,
)
from kohakuriver.files.requests import (
    DeleteFile,
    FileRequest,
    ListFolder,
    MakeFolder,
    ReadFile,
    RenameFile,
    StatFile,
    WriteFile,
    operations,
)
from kohakuriver.host.api.environments.routes import environment_named
from kohakuriver.host.api.http.answers import Endpoint, answer, encode, json_bytes
from kohakuriver.host.api.http.bodies import JsonBody
from kohakuriver.host.api.path_fields import EnvironmentName, TaskIdText
from kohakuriver.host.api.permissions import Call, OperatorCall, UserCall
from kohakuriver.host.api.workloads.reached import workload_with_open_files
from kohakuriver.models.errors import InvalidInput

_ANSWER_SECONDS = 300.0
_RECORD_BYTES = 64 << 10
"""What a record of one file takes in JSON at most: names and paths of control characters, six bytes each."""
_LISTED_BYTES = 16 << 10
"""The same for each entry of a page, where not every name can be such a one."""
"""Deleting a large tree, or writing to slow storage, takes its time."""

PathText = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PATH_BYTES, pattern="^/")]
PathQuery = Annotated[
    str, Query(min_length=1, max_length=MAX_PATH_BYTES, pattern="^/", description="absolute path inside")
]
Cursor = Annotated[str | None, Query(max_length=400, description="`next_cursor` of the page before")]
ShowHidden = Annotated[bool, Query(description="also names that begin with a dot")]
PageLimit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
ReadLimit = Annotated[int, Query(ge=1, le=MAX_READ_BYTES, description="at most so many bytes")]
AsEncoding = Annotated[Encoding, Query(description="form of the content in the answer")]
Recursive = Annotated[bool, Query(description="a folder with all that is in it")]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class WriteFileBody(_Body):
    """A file's whole new content, at most 50 MiB."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"path": "/etc/motd", "content": "hello\n"}]})

    path: PathText
    content: str
    encoding: Annotated[Encoding, Field(strict=False)] = Encoding.UTF_8
    create_parents: bool = True


class MakeFolderBody(_Body):
    """`parents`, also called `create_parents`: make the folders above it where they are missing."""

    path: PathText
    parents: bool | None = None
    create_parents: bool | None = None

    @property
    def with_parents(self) -> bool:
        said = {value for value in (self.parents, self.create_parents) if value is not None}
        if len(said) > 1:
            raise InvalidInput("parents and create_parents mean the same; give one of them", "parents")
        return said.pop() if said else True


class RenameFileBody(_Body):
    """`overwrite`: replace what has the name already; a folder only if it is empty."""

    source: PathText
    destination: PathText
    overwrite: bool = False


WriteBody = Annotated[WriteFileBody, Depends(JsonBody(WriteFileBody, MAX_WRITE_REQUEST_BYTES))]
MkdirBody = Annotated[MakeFolderBody, Depends(JsonBody(MakeFolderBody))]
RenameBody = Annotated[RenameFileBody, Depends(JsonBody(RenameFileBody))]


async def list_folder(
    call: UserCall,
    task_id: TaskIdText,
    path: PathQuery,
    cursor: Cursor = None,
    limit: PageLimit = MAX_PAGE,
    show_hidden: ShowHidden = True,
) -> Response:
    """List a folder, page by page, in the order of names."""
    return await _in_workload(call, task_id, ListFolder(path, cursor, limit, show_hidden))


async def read_file(
    call: UserCall,
    task_id: TaskIdText,
    path: PathQuery,
    encoding: AsEncoding = Encoding.UTF_8,
    limit: ReadLimit = MAX_READ_BYTES,
) -> Response:
    """Read a regular file; a longer one is cut off, and the answer says so."""
    return await _in_workload(call, task_id, ReadFile(path, encoding, limit))


async def stat_file(call: UserCall, task_id: TaskIdText, path: PathQuery) -> Response:
    """Tell about what is at a path; of a link about itself."""
    return await _in_workload(call, task_id, StatFile(path))


async def write_file(call: UserCall, task_id: TaskIdText, body: WriteBody) -> Response:
    """Replace a file's content, whole or not at all; it keeps its mode and owner."""
    return await _in_workload(call, task_id, _write(body))


async def make_folder(call: UserCall, task_id: TaskIdText, body: MkdirBody) -> Response:
    return await _in_workload(call, task_id, MakeFolder(body.path, body.with_parents))


async def rename_file(call: UserCall, task_id: TaskIdText, body: RenameBody) -> Response:
    """Give a file, folder or link another name or place."""
    return await _in_workload(call, task_id, RenameFile(body.source, body.destination, body.overwrite))


async def delete_file(
    call: UserCall, task_id: TaskIdText, path: PathQuery, recursive: Recursive = False
) -> Response:
    """Delete a file, a link, or a folder."""
    return await _in_workload(call, task_id, DeleteFile(path, recursive))


async def list_environment_folder(
    call: OperatorCall,
    name: EnvironmentName,
    path: PathQuery,
    cursor: Cursor = None,
    limit: PageLimit = MAX_PAGE,
    show_hidden: ShowHidden = True,
) -> Response:
    """List a folder of an environment's running container."""
    return await _in_environment(call, name, ListFolder(path, cursor, limit, show_hidden))


async def read_environment_file(
    call: OperatorCall,
    name: EnvironmentName,
    path: PathQuery,
    encoding: AsEncoding = Encoding.UTF_8,
    limit: ReadLimit = MAX_READ_BYTES,
) -> Response:
    """Read a regular file of an environment; a longer one is cut off, and the answer says so."""
    return await _in_environment(call, name, ReadFile(path, encoding, limit))


async def stat_environment_file(call: OperatorCall, name: EnvironmentName, path: PathQuery) -> Response:
    """Tell about what is at a path of an environment; of a link about itself."""
    return await _in_environment(call, name, StatFile(path))


async def write_environment_file(call: OperatorCall, name: EnvironmentName, body: WriteBody) -> Response:
    """Replace a file's content in an environment, whole or not at all."""
    return await _in_environment(call, name, _write(body))


async def make_environment_folder(call: OperatorCall, name: EnvironmentName, body: MkdirBody) -> Response:
    return await _in_environment(call, name, MakeFolder(body.path, body.with_parents))


async def rename_environment_file(call: OperatorCall, name: EnvironmentName, body: RenameBody) -> Response:
    """Give a file, folder or link of an environment another name or place."""
    return await _in_environment(call, name, RenameFile(body.source, body.destination, body.overwrite))


async def delete_environment_file(
    call: OperatorCall, name: EnvironmentName, path: PathQuery, recursive: Recursive = False
) -> Response:
    """Delete a file, a link, or a folder of an environment."""
    return await _in_environment(call, name, DeleteFile(path, recursive))


async def _in_workload(call: Call, text: str, request: FileRequest) -> Response:
    call.trail.note(detail=_places(request))
    workload = await workload_with_open_files(call, text)
    operation = operations()[type(request)]
    target, body = f"/api/fs/{workload.task_id}/{operation.name}", b""
    if operation.method == "POST":
        body = await asyncio.to_thread(encode, request)
    else:
        target += "?" + urlencode(_given(request))
    content = await call.parts.runners.call(
        workload.node, operation.method, target, body, _ANSWER_SECONDS, max_bytes=_most_bytes(request)
    )
    return json_bytes(content)


def _most_bytes(request: FileRequest) -> int:
    """Of the answer: a byte of a file, or of a name in a list, takes six in JSON at most."""
    if isinstance(request, ReadFile):
        return 6 * min(request.limit, MAX_READ_BYTES) + _RECORD_BYTES
    if isinstance(request, ListFolder):
        return request.limit * _LISTED_BYTES + _RECORD_BYTES
    return _RECORD_BYTES


async def _in_environment(call: Call, name: str, request: FileRequest) -> Response:
    call.trail.note(detail=_places(request))
    environment = await environment_named(call, name)
    return answer(await call.parts.environments.files.perform(environment, request.run))


def _places(request: FileRequest) -> str:
    """Where it reads or writes, for the audit line."""
    names = ("path", "source", "destination")
    return " to ".join(str(getattr(request, name)) for name in names if hasattr(request, name))


def _write(body: WriteFileBody) -> WriteFile:
    return WriteFile(body.path, body.content, body.encoding, body.create_parents)


def _given(request: FileRequest) -> dict[str, str]:
    fields: dict[str, Any] = asdict(request)  # type: ignore[call-overload]  # a protocol of dataclasses
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in fields.items()
        if value is not None
    }


_FAULTS = (404, 409, 502)
_WORKLOAD = "/api/fs/{task_id}"
_ENVIRONMENT = "/api/fs/container/{name}"
ENDPOINTS = (
    Endpoint("GET", f"{_WORKLOAD}/list", list_folder, FilePage, errors=_FAULTS),
    Endpoint("GET", f"{_WORKLOAD}/read", read_file, FileContent, errors=_FAULTS),
    Endpoint("GET", f"{_WORKLOAD}/stat", stat_file, FileDetails, errors=_FAULTS),
    Endpoint("POST", f"{_WORKLOAD}/write", write_file, FileDone, errors=_FAULTS, audit="file.write"),
    Endpoint("POST", f"{_WORKLOAD}/mkdir", make_folder, FileDone, errors=_FAULTS, audit="file.mkdir"),
    Endpoint("POST", f"{_WORKLOAD}/rename", rename_file, FileDone, errors=_FAULTS, audit="file.rename"),
    Endpoint("DELETE", f"{_WORKLOAD}/delete", delete_file, FileDone, errors=_FAULTS, audit="file.delete"),
    Endpoint("GET", f"{_ENVIRONMENT}/list", list_environment_folder, FilePage, errors=_FAULTS),
    Endpoint("GET", f"{_ENVIRONMENT}/read", read_environment_file, FileContent, errors=_FAULTS),
    Endpoint("GET", f"{_ENVIRONMENT}/stat", stat_environment_file, FileDetails, errors=_FAULTS),
    Endpoint(
        "POST",
        f"{_ENVIRONMENT}/write",
        write_environment_file,
        FileDone,
        errors=_FAULTS,
        audit="environment.file.write",
    ),
    Endpoint(
        "POST",
        f"{_ENVIRONMENT}/mkdir",
        make_environment_folder,
        FileDone,
        errors=_FAULTS,
        audit="environment.file.mkdir",
    ),
    Endpoint(
        "POST",
        f"{_ENVIRONMENT}/rename",
        rename_environment_file,
        FileDone,
        errors=_FAULTS,
        audit="environment.file.rename",
    ),
    Endpoint(
        "DELETE",
        f"{_ENVIRONMENT}/delete",
        delete_environment_file,
        FileDone,
        errors=_FAULTS,
        audit="environment.file.delete",
    ),
)
