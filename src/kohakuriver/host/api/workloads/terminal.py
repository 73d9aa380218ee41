"""Terminals and commands over WebSockets: in workloads through their runner, in environments of this host.

Each direction holds one message at a time, so whoever does not read is held back and nothing is dropped. A
right that ends takes what it opened with it, at once.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, FastAPI, WebSocket

from kohakuriver.host.api.environments.routes import environment_named
from kohakuriver.host.api.http.auditing import Rule
from kohakuriver.host.api.permissions import OperatorCall, UserCall
from kohakuriver.host.api.workloads.reached import (
    RunningWorkload,
    may_be_root,
    until_refused,
    usable_workload,
)
from kohakuriver.host.api.workloads.terminal_sockets import TextSocket, TtySocket, socket_of
from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import Conflict, InvalidInput, KohakuRiverError, Unauthenticated
from kohakuriver.streams.process_frames import feed, tell
from kohakuriver.streams.pumping import carry, first_to_end
from kohakuriver.wire.channel import Channel
from kohakuriver.wire.terminal_frames import SUBPROTOCOL

ENVIRONMENT_PATH = "/ws/docker/host/containers/{name}/terminal"
TERMINAL_PATH = "/ws/task/{task_id}/terminal"
EXEC_PATH = "/ws/task/{task_id}/exec"
INPUT_PATH = "/ws/task/{task_id}/stdin"
AUDITED: dict[str, Rule] = {
    ENVIRONMENT_PATH: "environment.shell",
    TERMINAL_PATH: "workload.shell",
    EXEC_PATH: "workload.exec",
    INPUT_PATH: "workload.input",
}
_ROWS, _COLS = 24, 80


def add_terminal(app: FastAPI) -> None:
    app.add_api_websocket_route(ENVIRONMENT_PATH, environment_terminal)
    app.add_api_websocket_route(TERMINAL_PATH, task_terminal)
    app.add_api_websocket_route(EXEC_PATH, task_command)
    app.add_api_websocket_route(INPUT_PATH, task_input)


async def environment_terminal(websocket: WebSocket, call: OperatorCall, name: str) -> None:
    """Serve one terminal until the shell ends, the client goes, or the right to it does."""
    shell = await call.parts.environments.open_terminal(await environment_named(call, name), _ROWS, _COLS)
    try:
        socket = socket_of(websocket)
        await socket.accept()
        await _serve(socket, tell(shell, socket), feed(shell, socket), _until(call.refused()))
    finally:
        await shell.close()


def _shell_options(
    rows: str | None = None, cols: str | None = None, session: str | None = None, seen: str | None = None
) -> dict[str, str]:
    """What of the query is handed on to the runner, which checks it."""
    given = {"rows": rows, "cols": cols, "session": session, "seen": seen}
    return {name: text for name, text in given.items() if text is not None}


ShellOptions = Annotated[dict[str, str], Depends(_shell_options)]


async def task_terminal(websocket: WebSocket, call: UserCall, task_id: str, options: ShellOptions) -> None:
    """Serve a shell in a workload. One that speaks our protocol can come back to it (`session`)."""
    workload = _thawed(await usable_workload(call, task_id))
    socket = socket_of(websocket)
    query = options if socket.keeps_shell else {**options, "keep": "no"}
    target = TERMINAL_PATH.format(task_id=workload.task_id) + (f"?{urlencode(query)}" if query else "")
    runner = await call.parts.runners.open_stream(workload.node, target)
    await _relay(socket, runner, lambda: until_refused(call, workload))


async def task_command(websocket: WebSocket, call: UserCall, task_id: str) -> None:
    """Run one command in a workload; the client's first frame says which."""
    workload = _thawed(await usable_workload(call, task_id))
    socket = socket_of(websocket)
    if isinstance(socket, TextSocket):
        raise InvalidInput(f"commands are run over the WebSocket subprotocol {SUBPROTOCOL}; offer it")
    target = EXEC_PATH.format(task_id=workload.task_id)
    if not may_be_root(call, workload.task):
        target += "?user=own"
    runner = await call.parts.runners.open_stream(workload.node, target)
    await _relay(socket, runner, lambda: until_refused(call, workload))


async def task_input(websocket: WebSocket, call: UserCall, task_id: str) -> None:
    """Take the standard input of a task that was submitted with `stdin_streams`, for its runner."""
    workload = await usable_workload(call, task_id)
    socket = socket_of(websocket)
    if isinstance(socket, TextSocket):
        raise InvalidInput(f"input is sent over the WebSocket subprotocol {SUBPROTOCOL}; offer it")
    if workload.task.spec.stdin is None or not workload.task.spec.stdin.streams:
        raise Conflict(f"task {workload.task_id} was not submitted with stdin_streams, so it takes no input")
    runner = await call.parts.runners.open_stream(workload.node, INPUT_PATH.format(task_id=workload.task_id))
    await _relay(socket, runner, lambda: until_refused(call, workload))


async def _relay(socket: TtySocket, runner: Channel, refused: Callable[[], Awaitable[str]]) -> None:
    try:
        await socket.accept()
        await _serve(socket, carry(runner, socket), carry(socket, runner), _until(refused()))
    finally:
        await runner.close()


async def _serve(socket: TtySocket, *directions: Coroutine[Any, Any, None]) -> None:
    try:
        await first_to_end(*directions)
    except KohakuRiverError as error:
        await socket.close(error)
    else:
        await socket.close()


async def _until(refused: Awaitable[str]) -> None:
    """Raise once what opened the terminal would not open it any more."""
    raise Unauthenticated(await refused)


def _thawed(workload: RunningWorkload) -> RunningWorkload:
    if workload.task.state is TaskState.PAUSED:
        raise Conflict(f"task {workload.task_id} is paused; resume it first, or nothing in it answers")
    return workload
