"""The end of a VPS for good: its snapshots, what else its node has of it, its output, and its record.

The record goes last, so whatever fails on the way can be done again with the same call.
"""

import asyncio

import structlog
from starlette.responses import Response

from kohakuriver.host.api.http.answers import Endpoint, Message, answer
from kohakuriver.host.api.path_fields import TaskIdText
from kohakuriver.host.api.permissions import Call, UserCall
from kohakuriver.host.api.vps.routes import own_vps
from kohakuriver.models.enums import NodeStatus
from kohakuriver.models.errors import KohakuRiverError
from kohakuriver.models.tasks import Task

_HOME_SECONDS = 1800.0
_OTHERS_SECONDS = 60.0
log = structlog.get_logger()


async def delete(call: UserCall, task_id: TaskIdText) -> Response:
    """Delete a VPS that has ended: its snapshots, on its node and in shared storage, output and record.

    It cannot be started again. What nodes that it was moved away from still have of it goes too, if they can
    be reached.
    """
    task = await own_vps(call, task_id)
    await call.control.vps.begin_deleting(task)
    openness = call.control.nodes.openness()
    if task.assigned_node in openness:
        await _delete_on(call, task, task.assigned_node, _HOME_SECONDS)
    others = [name for name, (status, _) in openness.items() if status is NodeStatus.ONLINE]
    await asyncio.gather(*(_try_on(call, task, name) for name in others if name != task.assigned_node))
    await call.parts.output.delete(task.id)
    await call.control.vps.delete(task)
    return answer(Message(f"VPS {task.id} is deleted"))


async def _delete_on(call: Call, task: Task, node: str, seconds: float) -> None:
    await call.parts.runners.call(node, "DELETE", f"/api/vps/{task.id}", b"", seconds)


async def _try_on(call: Call, task: Task, node: str) -> None:
    """The VPS may have been there before it was moved."""
    try:
        await _delete_on(call, task, node, _OTHERS_SECONDS)
    except KohakuRiverError as error:
        log.warning("session_left_on_node", task_id=str(task.id), node=node, reason=str(error))


ENDPOINTS = (
    Endpoint(
        "DELETE",
        "/api/vps/{task_id}",
        delete,
        Message,
        errors=(404, 409, 502, 503),
        audit="session.delete",
    ),
)
