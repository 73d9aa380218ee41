"""A range of a task's output on this node, for a host that cannot read the file itself.

Only regular files at the place where this runner writes output are opened, and never through a link.
"""

import asyncio
import os
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from kohakuriver.files.system.linkless import folder_below, open_file_in
from kohakuriver.models.errors import InvalidInput, NotFound
from kohakuriver.models.ids import parse_task_id
from kohakuriver.models.numbers import whole_number
from kohakuriver.models.output.places import OutputPlace, part_named
from kohakuriver.runner.api.services import RunnerServices
from kohakuriver.runner.local_temp import LOGS

MAX_WINDOW_BYTES = 4 << 20


def read_window(local_temp_dir: Path, place: OutputPlace, offset: int, length: int) -> tuple[bytes, int]:
    """Return bytes from the offset (fewer at the end, at most `MAX_WINDOW_BYTES`) and the size so far.

    Blocking. Raises NotFound when this node has no such output.
    """
    try:
        with folder_below(local_temp_dir, (LOGS, *place.folders)) as folder:
            file = open_file_in(folder, place.file_name, os.O_RDONLY)
        try:
            return os.pread(file, min(length, MAX_WINDOW_BYTES), offset), os.fstat(file).st_size
        finally:
            os.close(file)
    except OSError as error:
        raise NotFound(
            f"this node has no {place.part.value} of attempt {place.attempt} of task {place.task_id}"
        ) from error


async def send_output(services: RunnerServices, request: Request) -> Response:
    task_id = parse_task_id(request.path_params["task_id"])
    try:
        part = part_named(request.path_params["stream"])
    except ValueError as error:
        raise NotFound("a task has the streams stdout and stderr, and the times of both") from error
    offset = _whole(request, "offset", 0)
    length = min(_whole(request, "length", 1 << 20), MAX_WINDOW_BYTES)
    place = OutputPlace(task_id, _whole(request, "attempt", 1), part)
    content, size = await asyncio.to_thread(read_window, services.local_temp_dir, place, offset, length)
    return Response(content, media_type="application/octet-stream", headers={"X-Log-Size": str(size)})


def _whole(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    number = whole_number(text)
    if number is None:
        raise InvalidInput(f"{name} must be a whole number, not {text[:40]!r}", field=name)
    return number
