"""Ports of workloads over WebSockets: a tunnel's frames, which the host passes on unread.

The client opens connections by CONNECT, whose port field names the port, so one WebSocket serves any number
of ports of one workload; the port of the path is the one that is audited, and the only one of a client
without credit. A right that ends takes the tunnel with it, at once.
"""

import asyncio
from dataclasses import dataclass

from fastapi import FastAPI, WebSocket

from kohakuriver.host.api.http.auditing import Rule
from kohakuriver.host.api.permissions import Call, UserCall
from kohakuriver.host.api.workloads.forward_socket import ForwardSocket, forward_socket_of, pass_on, translate
from kohakuriver.host.api.workloads.reached import RunningWorkload, until_refused, usable_workload
from kohakuriver.host.audit import AuditEvent, Outcome
from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import (
    Conflict,
    EngineFault,
    InvalidInput,
    KohakuRiverError,
    SwitchedOff,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from kohakuriver.models.names import task_container_name, vps_container_name
from kohakuriver.models.numbers import port_number
from kohakuriver.models.tasks import Task
from kohakuriver.streams.forwarding import expect_opened
from kohakuriver.streams.pumping import first_to_end
from kohakuriver.streams.tunnels.without_credit import MOST_HELD_BYTES
from kohakuriver.wire.channel import Channel
from kohakuriver.wire.tunnel.frames import Transport

PATH = "/ws/forward/{task_id}/{port}"
AUDITED: dict[str, Rule] = {PATH: "workload.forward"}
_ENDED = "workload.forward.end"
_OPENING_SECONDS = 20.0
_MAY_RUN_SOON = frozenset({TaskState.PENDING, TaskState.ASSIGNING, TaskState.LOST})
_SAID_IN_TEXT = (Conflict, SwitchedOff, TooMany, Unavailable, EngineFault)
"""What clients without credit hear as `Error: …` over an open WebSocket, since that is what they show."""


def add_forward(app: FastAPI) -> None:
    app.add_api_websocket_route(PATH, forward)


@dataclass(frozen=True, slots=True)
class _Wanted:
    transport: Transport
    port: int

    def __str__(self) -> str:
        return f"port {self.port}/{self.transport.name.lower()}"


async def forward(websocket: WebSocket, call: UserCall, task_id: str, port: str, proto: str = "tcp") -> None:
    """Carry a tunnel into a workload until its client goes, the workload ends, or the right to it does."""
    wanted = _wanted(port, proto)
    socket = forward_socket_of(websocket)
    try:
        workload = await usable_workload(call, task_id, _not_just_now)
        if not socket.has_credit:
            call.parts.tunnel_shares.hold(websocket.scope, call.actor.name, MOST_HELD_BYTES)
        runner = await _open(call, workload)
    except _SAID_IN_TEXT as error:
        if socket.has_credit:
            raise
        await socket.accept()
        await socket.close(error)
        return
    call.trail.note(str(workload.task_id), str(wanted))
    try:
        await socket.accept()
        await _serve(call, workload, socket, runner, wanted)
    finally:
        await runner.close()


def _not_just_now(task: Task) -> None:
    """Raise Unavailable where the workload may run soon, so that a tunnel through a restart is made anew."""
    if task.state in _MAY_RUN_SOON:
        raise Unavailable(f"{task.id} is {task.state.value}, and does not run just now; try again")


def _wanted(port: str, proto: str) -> _Wanted:
    number = port_number(port)
    if number is None:
        raise InvalidInput(f"{port[:20]!r} is not a port; ports are numbers from 1 to 65535", field="port")
    if proto not in ("tcp", "udp"):
        raise InvalidInput(f"{proto[:20]!r} is not forwarded; proto is tcp or udp", field="proto")
    return _Wanted(Transport[proto.upper()], number)


async def _open(call: Call, workload: RunningWorkload) -> Channel:
    """Return the stream of a tunnel that is open."""
    name = vps_container_name if workload.task.is_vps else task_container_name
    channel = await call.parts.runners.open_stream(workload.node, f"/ws/forward/{name(workload.task_id)}")
    try:
        async with asyncio.timeout(_OPENING_SECONDS):
            await expect_opened(channel)
    except TimeoutError as error:
        await channel.close()
        raise Unavailable(f"node {workload.node} does not answer in time") from error
    except BaseException:
        await channel.close()
        raise
    return channel


async def _serve(
    call: Call, workload: RunningWorkload, socket: ForwardSocket, runner: Channel, wanted: _Wanted
) -> None:
    error: KohakuRiverError | None = None
    try:
        await socket.send("CONNECTED")
        carrying = (
            pass_on(socket, runner)
            if socket.has_credit
            else translate(socket, runner, wanted.transport, wanted.port)
        )
        await first_to_end(carrying, _until_refused(call, workload))
    except KohakuRiverError as ended:
        error = ended
    finally:
        _record_end(call, workload, socket, wanted, error)
    await socket.close(error)


async def _until_refused(call: Call, workload: RunningWorkload) -> None:
    """Raise once what opened the tunnel would not open it any more."""
    raise Unauthenticated(await until_refused(call, workload))


def _record_end(
    call: Call,
    workload: RunningWorkload,
    socket: ForwardSocket,
    wanted: _Wanted,
    error: KohakuRiverError | None,
) -> None:
    event = AuditEvent(
        action=_ENDED,
        actor=call.actor.name,
        token_id=call.actor.token_id,
        object=str(workload.task_id),
        detail=f"{wanted}, {socket.received_bytes} bytes from the client, {socket.sent_bytes} to it",
        address=socket.address,
        reason="" if error is None else str(error),
    )
    call.parts.audit.record(event, Outcome.DONE)
