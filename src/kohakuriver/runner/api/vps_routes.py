"""VPSs, for the host: single orders in the form of the document, and snapshots; signals to any task."""

from starlette.requests import Request
from starlette.responses import Response

from kohakuriver.models.enums import OrderKind
from kohakuriver.models.errors import InvalidInput, NotFound
from kohakuriver.models.ids import TaskId, parse_task_id
from kohakuriver.models.numbers import whole_number
from kohakuriver.models.spec.signals import KILL, check_signal
from kohakuriver.runner.api.services import Handler, RunnerServices, json_answer
from kohakuriver.wire.messages import Order, decode
from kohakuriver.wire.snapshots import SnapshotRequest, SnapshotState


def steer_vps(kind: OrderKind) -> Handler:
    """One order for the run that is under way; a refusal is 422 with the sentence."""

    async def handler(services: RunnerServices, request: Request) -> Response:
        task_id = _task_id(request)
        order = Order(kind=kind, task_id=str(task_id), attempt=services.vps.attempt_number(task_id))
        (answer,) = await services.take_orders([order])
        if not answer.accepted:
            raise InvalidInput(answer.detail or "the order is refused")
        return json_answer(answer)

    return handler


async def send_signal(services: RunnerServices, request: Request) -> Response:
    """Query: `signal`, and `attempt`, which fences. KILL is a kill without grace."""
    text = request.query_params.get("attempt", "")
    attempt = whole_number(text, 9)
    if attempt is None:
        raise InvalidInput(f"attempt must be a number, not {text[:40]!r}", field="attempt")
    name = check_signal(request.query_params.get("signal", ""))
    task_id = _task_id(request)
    if name == KILL:
        order = Order(kind=OrderKind.KILL, task_id=str(task_id), attempt=attempt, grace_seconds=0)
        await services.take_orders([order])
    else:
        await services.vps.signal(task_id, attempt, name)
    return json_answer({"message": f"SIG{name} is sent"})


async def list_snapshots(services: RunnerServices, request: Request) -> Response:
    found = await services.vps.list(_task_id(request))
    return json_answer([SnapshotState(at=s.at, message=s.message, size_bytes=s.size_bytes) for s in found])


async def latest_snapshot(services: RunnerServices, request: Request) -> Response:
    task_id = _task_id(request)
    found = await services.vps.list(task_id)
    if not found:
        raise NotFound(f"VPS {task_id} has no snapshot on this node")
    newest = found[0]
    return json_answer(SnapshotState(at=newest.at, message=newest.message, size_bytes=newest.size_bytes))


async def take_snapshot(services: RunnerServices, request: Request) -> Response:
    asked_for = decode(await request.body() or b"{}", SnapshotRequest)
    made = await services.vps.take(_task_id(request), asked_for.message)
    return json_answer(SnapshotState(at=made.at, message=made.message, size_bytes=made.size_bytes))


async def delete_snapshots(services: RunnerServices, request: Request) -> Response:
    return json_answer({"deleted": await services.vps.delete_all(_task_id(request))})


async def delete_snapshot(services: RunnerServices, request: Request) -> Response:
    await services.vps.delete(_task_id(request), _time(request))
    return json_answer({"deleted": 1})


async def delete_vps(services: RunnerServices, request: Request) -> Response:
    return json_answer({"deleted": await services.vps.delete_vps(_task_id(request))})


async def export_snapshot(services: RunnerServices, request: Request) -> Response:
    await services.vps.export(_task_id(request), _time(request))
    return json_answer({"message": "the snapshot is in shared storage"})


async def import_snapshot(services: RunnerServices, request: Request) -> Response:
    await services.vps.take_in(_task_id(request), _time(request))
    return json_answer({"message": "the snapshot is on this node"})


def _task_id(request: Request) -> TaskId:
    return parse_task_id(request.path_params["task_id"])


def _time(request: Request) -> int:
    text = request.path_params["timestamp"]
    moment = whole_number(text, 12)
    if moment is None:
        raise InvalidInput(f"{text[:40]!r} is not the time of a snapshot (unix seconds)", field="timestamp")
    return moment
