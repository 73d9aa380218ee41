"""VPSs: create, look at, stop, start again, and who may use them."""

from datetime import datetime
from typing import Annotated

from fastapi import Depends, Path, Query
from starlette.responses import Response

from kohakuriver.host.api.http.answers import Endpoint, Message, answer
from kohakuriver.host.api.http.bodies import AssignmentBody, AssignNumbersBody, CreateVpsBody, JsonBody
from kohakuriver.host.api.http.body_reading import MAX_BODY_BYTES
from kohakuriver.host.api.path_fields import TaskIdText
from kohakuriver.host.api.permissions import Call, OperatorCall, UserCall, ViewerCall
from kohakuriver.host.api.records import Record
from kohakuriver.host.api.tasks.routes import Limit, most
from kohakuriver.host.api.tasks.submission import host_access_of
from kohakuriver.host.api.vps.creation import vps_spec_of
from kohakuriver.host.api.vps_records import Assignee, VpsRecord, assignees_shown, vps_record
from kohakuriver.host.api.workloads.reached import may_use
from kohakuriver.host.auth import Action, may
from kohakuriver.host.control import TaskFilter
from kohakuriver.models.enums import SshKeyMode, TaskType, VpsBackend
from kohakuriver.models.errors import Denied, NotFound, Unavailable
from kohakuriver.models.ids import parse_task_id
from kohakuriver.models.tasks import Task

Offset = Annotated[int, Query(ge=0, le=1 << 40)]
CreateVps = Annotated[CreateVpsBody, Depends(JsonBody(CreateVpsBody, MAX_BODY_BYTES))]
AssignNumbers = Annotated[AssignNumbersBody, Depends(JsonBody(AssignNumbersBody))]
AssignUser = Annotated[AssignmentBody, Depends(JsonBody(AssignmentBody))]
UserNumber = Annotated[int, Path(ge=1, le=1 << 31, description="a user's number")]
UserName = Annotated[str, Query(min_length=1, max_length=128)]


class CreatedVps(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A VPS that was accepted. `ssh_private_key` is shown here, once, and kept nowhere."""

    task_id: str
    name: str
    ssh_port: int | None
    assigned_node: str | None
    message: str
    runner_response: None
    ssh_key_mode: SshKeyMode
    vps_backend: VpsBackend
    ssh_private_key: str | None = None
    ssh_public_key: str | None = None


class Assignment(Assignee, frozen=True, kw_only=True):
    """A user who may use the VPS."""

    assigned_by: str
    assigned_at: datetime


class Assigned(Record, frozen=True, kw_only=True):
    """Who may use one VPS."""

    task_id: str
    assignments: list[Assignment]


class GatewayRecord(Record, frozen=True, kw_only=True):
    """Where the SSH gateway listens, and the public key by which clients know it (`type base64`)."""

    host: str
    port: int
    host_key: str


async def create(call: OperatorCall, body: CreateVps) -> Response:
    """Create a VPS. Answered once it is in the store; `/api/status` shows when it is ready."""
    wanted = vps_spec_of(body)
    task = await call.control.vps.create(call.actor.name, wanted.spec)
    call.trail.note(str(task.id), host_access_of(wanted.spec))
    record = vps_record(task, call)
    place = f"on node {task.assigned_node}" if task.assigned_node else "as soon as a node has room"
    return answer(
        CreatedVps(
            task_id=str(task.id),
            name=wanted.spec.name or f"vps-{task.id}",
            ssh_port=record.ssh_port,
            assigned_node=task.assigned_node,
            message=f"VPS {task.id} starts {place}",
            runner_response=None,
            ssh_key_mode=record.ssh_key_mode,
            vps_backend=record.vps_backend,
            ssh_private_key=wanted.private_key,
            ssh_public_key=wanted.public_key,
        )
    )


async def list_vps(
    call: ViewerCall, limit: Limit = 100, offset: Offset = 0, usable: bool = False
) -> Response:
    """List VPSs, newest first; with `usable` only those that the caller may use."""
    tasks = await call.control.tasks.select(TaskFilter(TaskType.VPS, limit=most(limit), offset=offset))
    return answer([vps_record(task, call) for task in tasks if not usable or may_use(call, task)])


async def list_own(call: ViewerCall, limit: Limit = 100, offset: Offset = 0) -> Response:
    """List the VPSs that the caller may use, newest first."""
    return await list_vps(call, limit, offset, usable=True)


async def list_active(call: ViewerCall) -> Response:
    """List the VPSs that run, are being started, or wait for room, newest first."""
    return answer([vps_record(task, call) for task in call.control.vps.active()])


async def stop(call: UserCall, task_id: TaskIdText) -> Response:
    """End a VPS in order; it can be started again. If it cannot be kept it goes on, with a notice."""
    task = await own_vps(call, task_id)
    await call.control.vps.stop(task.id)
    return answer(Message(f"VPS {task.id} is being stopped"), 202)


async def restart(call: UserCall, task_id: TaskIdText) -> Response:
    """Start a VPS again, from its newest snapshot; one that runs is stopped in order first."""
    task = await own_vps(call, task_id)
    await call.control.vps.restart(task.id)
    return answer(Message(f"VPS {task.id} is being started again"), 202)


async def list_assignments(call: OperatorCall, task_id: TaskIdText) -> Response:
    """List the users to whom a VPS is assigned."""
    task = await find_vps(call, task_id)
    return answer(_assigned(call, task))


def _assigned(call: Call, task: Task) -> Assigned:
    rows = call.control.accounts.known.assigned(task.id)
    return Assigned(
        task_id=str(task.id),
        assignments=[
            Assignment(
                user_id=shown.user_id,
                username=shown.username,
                assigned_by=row.assigned_by,
                assigned_at=row.assigned_at,
            )
            for row, shown in zip(rows, assignees_shown(task, call), strict=True)
        ],
    )


async def assign(call: OperatorCall, task_id: TaskIdText, body: AssignUser) -> Response:
    """Let a user use the VPS: its shells, files and SSH."""
    call.trail.note(detail=body.username)
    task = await find_vps(call, task_id)
    await call.control.accounts.assign(task.id, [body.username], call.actor.name)
    return answer(Message(f"{body.username} may use VPS {task.id}"))


async def assign_by_number(call: OperatorCall, task_id: TaskIdText, body: AssignNumbers) -> Response:
    """Let the users of these numbers use the VPS."""
    task = await find_vps(call, task_id)
    names = [call.control.accounts.known.user_of_number(number).name for number in body.root]
    call.trail.note(detail=" ".join(names))
    await call.control.accounts.assign(task.id, names, call.actor.name)
    return answer(_assigned(call, task))


async def unassign_by_number(call: OperatorCall, task_id: TaskIdText, user_id: UserNumber) -> Response:
    """Take that right away from the user of this number."""
    return await unassign(call, task_id, call.control.accounts.known.user_of_number(user_id).name)


async def unassign(call: OperatorCall, task_id: TaskIdText, username: UserName) -> Response:
    """Take that right away; what the user has open in the VPS ends."""
    call.trail.note(detail=username)
    task = await find_vps(call, task_id)
    await call.control.accounts.unassign(task.id, username)
    return answer(Message(f"{username} may not use VPS {task.id} any more"))


async def gateway(call: ViewerCall) -> Response:
    """Tell where the SSH gateway is and how to know it."""
    found = call.parts.gateway
    if found is None:
        raise Unavailable("the SSH gateway of this host does not listen; its log says why")
    return answer(GatewayRecord(host=call.parts.reachable_at[0], port=found.port, host_key=found.public_key))


async def find_vps(call: Call, text: str) -> Task:
    """Return the VPS of that id; raises NotFound for a command task as well."""
    task = await call.control.tasks.find(parse_task_id(text))
    if not task.is_vps:
        raise NotFound(f"task {task.id} is no VPS")
    return task


async def own_vps(call: Call, text: str) -> Task:
    """Return a VPS that the caller may control."""
    task = await find_vps(call, text)
    if not may(call.actor, Action.CONTROL_TASK, task.owner):
        raise Denied(f"VPS {task.id} belongs to somebody else; its owner or an operator can do this")
    return task


ENDPOINTS = (
    Endpoint("POST", "/api/vps/create", create, CreatedVps, errors=(404, 409, 429), audit="session.create"),
    Endpoint("POST", "/api/vps/stop/{task_id}", stop, Message, 202, (404, 409), audit="session.stop"),
    Endpoint(
        "POST", "/api/vps/restart/{task_id}", restart, Message, 202, (404, 409), audit="session.restart"
    ),
    Endpoint("GET", "/api/vps", list_vps, list[VpsRecord]),
    Endpoint("GET", "/api/vps/my", list_own, list[VpsRecord]),
    Endpoint("GET", "/api/vps/status", list_active, list[VpsRecord]),
    Endpoint("GET", "/api/vps/gateway", gateway, GatewayRecord),
    Endpoint("GET", "/api/vps/{task_id}/assignments", list_assignments, Assigned, errors=(404,)),
    Endpoint(
        "POST",
        "/api/vps/{task_id}/assign",
        assign_by_number,
        Assigned,
        errors=(404, 409),
        audit="session.assign_by_number",
    ),
    Endpoint(
        "DELETE",
        "/api/vps/{task_id}/assign/{user_id}",
        unassign_by_number,
        Message,
        errors=(404,),
        audit="session.unassign_by_number",
    ),
    Endpoint(
        "POST", "/api/vps/{task_id}/assignments", assign, Message, errors=(404, 409), audit="session.assign"
    ),
    Endpoint(
        "DELETE", "/api/vps/{task_id}/assignments", unassign, Message, errors=(404,), audit="session.unassign"
    ),
)
