"""The file operations, for the host: each is a value (`files.requests`) that is run on a workload's files."""

import asyncio
from collections.abc import Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kohakuriver.files.requests import FileRequest, operations
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.ids import parse_task_id
from kohakuriver.runner.api.services import Handler, RunnerServices, json_answer
from kohakuriver.wire.messages import decode


def file_routes() -> Mapping[tuple[str, str], Handler]:
    """The handlers by method and path."""
    return {
        (operation.method, f"/api/fs/{{task_id}}/{operation.name}"): _perform(kind)
        for kind, operation in operations().items()
    }


def _perform(kind: type[FileRequest]) -> Handler:
    async def handler(services: RunnerServices, request: Request) -> Response:
        task_id = parse_task_id(request.path_params["task_id"])
        if request.method == "POST":
            body = await request.body()
            wanted = await asyncio.to_thread(decode, body, kind)
        else:
            wanted = _from_query(request, kind)
        return json_answer(await services.engine_of(task_id).files.perform(task_id, wanted))

    return handler


def _from_query(request: Request, kind: type[FileRequest]) -> FileRequest:
    try:
        return msgspec.convert(dict(request.query_params), kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the query does not fit: {error}") from error
