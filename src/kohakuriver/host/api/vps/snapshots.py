"""Snapshots of VPSs. They lie on the VPS's node, which is asked each time."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Path, Query
from starlette.responses import Response

from kohakuriver.host.api.http.answers import Endpoint, Message, answer
from kohakuriver.host.api.http.bodies import JsonBody, RestoreBody, SnapshotBody
from kohakuriver.host.api.path_fields import TaskIdText
from kohakuriver.host.api.permissions import Call, UserCall, ViewerCall
from kohakuriver.host.api.records import Record
from kohakuriver.host.api.vps.routes import find_vps, own_vps
from kohakuriver.models.errors import Conflict, NotFound
from kohakuriver.models.names import snapshot_repository
from kohakuriver.models.tasks import Task
from kohakuriver.models.transitions import ALIVE, RESTARTABLE
from kohakuriver.wire.messages import decode, encode
from kohakuriver.wire.snapshots import SnapshotRequest, SnapshotState

_WORK_SECONDS = 1800.0
"""For as long a snapshot may take to be made, written or read; large ones on slow disks do."""
Timestamp = Annotated[int, Path(ge=0, le=10**12, description="unix time that names the snapshot")]


class SnapshotRecord(Record, frozen=True, kw_only=True):
    """One snapshot of VPS `task_id`; `timestamp` names it, `tag` is its image on the VPS's node.

    `size_bytes` is what it adds to the image below it.
    """

    task_id: str
    timestamp: int
    tag: str
    created_at: datetime
    message: str
    size_bytes: int


class Snapshots(Record, frozen=True, kw_only=True):
    """The snapshots of one VPS, newest first."""

    task_id: str
    count: int
    snapshots: list[SnapshotRecord]


async def list_snapshots(call: ViewerCall, task_id: TaskIdText) -> Response:
    """List the snapshots of a VPS on its node, newest first."""
    task = await find_vps(call, task_id)
    found = await _listed(call, task)
    return answer(Snapshots(task_id=str(task.id), count=len(found), snapshots=found))


async def latest(call: ViewerCall, task_id: TaskIdText) -> Response:
    """Show the newest snapshot."""
    task = await find_vps(call, task_id)
    found = await _listed(call, task)
    if not found:
        raise NotFound(f"VPS {task.id} has no snapshots")
    return answer(found[0])


async def create(
    call: UserCall,
    task_id: TaskIdText,
    body: Annotated[SnapshotBody, Depends(JsonBody(SnapshotBody))],
    message: Annotated[str | None, Query(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")] = None,
) -> Response:
    """Make a snapshot of a VPS that runs or is paused; its processes are frozen meanwhile.

    The message is taken from the query, else from the body.
    """
    task = await own_vps(call, task_id)
    if task.state not in ALIVE:
        raise Conflict(f"VPS {task.id} is {task.state.value}; a snapshot needs one that runs")
    asked_for = encode(SnapshotRequest(message=message or body.message))
    made = await _ask(call, task, "POST", "", asked_for)
    return answer(_record(task, decode(made, SnapshotState)))


async def delete_all(call: UserCall, task_id: TaskIdText) -> Response:
    """Delete all snapshots of a VPS."""
    task = await own_vps(call, task_id)
    await _ask(call, task, "DELETE", "")
    return answer(Message(f"the snapshots of VPS {task.id} are deleted"))


async def delete(call: UserCall, task_id: TaskIdText, timestamp: Timestamp) -> Response:
    """Delete one snapshot."""
    task = await own_vps(call, task_id)
    await _ask(call, task, "DELETE", f"/{timestamp}")
    return answer(Message(f"snapshot {timestamp} of VPS {task.id} is deleted"))


async def restore(
    call: UserCall,
    task_id: TaskIdText,
    timestamp: Timestamp,
    body: Annotated[RestoreBody, Depends(JsonBody(RestoreBody))],
) -> Response:
    """Start a VPS from a chosen snapshot; one that runs is stopped in order first.

    With `target_hostname` a stopped VPS goes on on that node: the snapshot is taken there by way of
    shared storage, and the VPS's place changes only once it is there.
    """
    task = await own_vps(call, task_id)
    if timestamp not in {snapshot.timestamp for snapshot in await _listed(call, task)}:
        raise NotFound(f"VPS {task.id} has no snapshot {timestamp} on its node")
    node = body.target_hostname
    if node is not None and node != task.assigned_node:
        if task.state not in RESTARTABLE:
            raise Conflict(f"VPS {task.id} is {task.state.value}; stop it before it is moved")
        await _ask(call, task, "POST", f"/{timestamp}/export")
        await _ask(call, task, "POST", f"/{timestamp}/import", node=node)
    await call.control.vps.restart(task.id, str(timestamp), node)
    where = f" on node {node}" if node else ""
    return answer(Message(f"VPS {task.id} starts from snapshot {timestamp}{where}"), 202)


async def _listed(call: Call, task: Task) -> list[SnapshotRecord]:
    if task.assigned_node is None:
        return []
    found = decode(await _ask(call, task, "GET", ""), list[SnapshotState])
    return [_record(task, snapshot) for snapshot in found]


async def _ask(
    call: Call, task: Task, method: str, rest: str, body: bytes = b"", node: str | None = None
) -> bytes:
    where = node or task.assigned_node
    if where is None:
        raise NotFound(f"VPS {task.id} never ran, so it has no snapshots")
    path = f"/api/vps/snapshots/{task.id}{rest}"
    return await call.parts.runners.call(where, method, path, body, _WORK_SECONDS)


def _record(task: Task, snapshot: SnapshotState) -> SnapshotRecord:
    return SnapshotRecord(
        task_id=str(task.id),
        tag=f"{snapshot_repository(task.id)}:{snapshot.at}",
        timestamp=snapshot.at,
        created_at=datetime.fromtimestamp(snapshot.at, UTC),
        message=snapshot.message,
        size_bytes=snapshot.size_bytes,
    )


_PATH = "/api/vps/snapshots/{task_id}"
_NODE_ERRORS = (404, 409, 502)
ENDPOINTS = (
    Endpoint("GET", _PATH, list_snapshots, Snapshots, errors=_NODE_ERRORS),
    Endpoint("POST", _PATH, create, SnapshotRecord, errors=_NODE_ERRORS, audit="snapshot.create"),
    Endpoint("DELETE", _PATH, delete_all, Message, errors=_NODE_ERRORS, audit="snapshot.delete_all"),
    Endpoint("GET", f"{_PATH}/latest", latest, SnapshotRecord, errors=_NODE_ERRORS),
    Endpoint(
        "DELETE", f"{_PATH}/{{timestamp}}", delete, Message, errors=_NODE_ERRORS, audit="snapshot.delete"
    ),
    Endpoint(
        "POST",
        f"{_PATH}/{{timestamp}}/restore",
        restore,
        Message,
        202,
        _NODE_ERRORS,
        audit="snapshot.restore",
    ),
)
