"""Shell in an environment's container, over a WebSocket with text frames.

Frames are `{"type": "input" | "resize" | "output" | "error", data, rows, cols}`. Text is decoded piece by
piece, so a character split over two reads arrives whole. Each direction holds one piece at a time, so
whoever does not read is held back. A token that ends takes its open terminals with it, at once.
"""

import asyncio
import codecs
from typing import Literal, Protocol

import msgspec
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from kohakuriver.host.api.permissions import Call, OperatorCall
from kohakuriver.models.errors import KohakuRiverError, Unauthenticated
from kohakuriver.models.names import check_environment_name

PATH = "/ws/docker/host/containers/{name}/terminal"
_ROWS, _COLS = 24, 80
_POLICY_VIOLATION = 1008


class TerminalFrame(msgspec.Struct, frozen=True, omit_defaults=True):
    """One frame, either way."""

    type: Literal["input", "resize", "output", "error"]
    data: str = ""
    rows: int = 0
    cols: int = 0


class Shell(Protocol):
    """The shell's end, bytes in and out; `read` returns nothing once it has ended."""

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    async def resize(self, rows: int, cols: int) -> None: ...


def add_terminal(app: FastAPI) -> None:
    app.add_api_websocket_route(PATH, environment_terminal)


async def environment_terminal(websocket: WebSocket, call: OperatorCall, name: str) -> None:
    """Serve one terminal until the shell ends, the client goes, or the right to it does."""
    shell = await call.parts.environments.open_terminal(check_environment_name(name), _ROWS, _COLS)
    try:
        await websocket.accept()
        await _relay(websocket, shell, call)
    except WebSocketDisconnect:
        return
    finally:
        await shell.close()


async def _relay(websocket: WebSocket, shell: Shell, call: Call) -> None:
    loop = asyncio.get_running_loop()
    pumps = [
        loop.create_task(_shell_to_client(shell, websocket)),
        loop.create_task(_client_to_shell(websocket, shell)),
        loop.create_task(_until_refused(call)),
    ]
    try:
        done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in done:
            pump.result()
        await websocket.close()
    except Unauthenticated as error:
        await websocket.close(_POLICY_VIOLATION, str(error)[:120])
    except KohakuRiverError as error:
        await _send(websocket, TerminalFrame("error", str(error)))
        await websocket.close()
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _shell_to_client(shell: Shell, websocket: WebSocket) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while data := await shell.read():
        if text := decoder.decode(data):
            await _send(websocket, TerminalFrame("output", text))
    if rest := decoder.decode(b"", final=True):
        await _send(websocket, TerminalFrame("output", rest))


async def _client_to_shell(websocket: WebSocket, shell: Shell) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            frame = msgspec.json.decode(message.get("text") or b"", type=TerminalFrame)
        except (msgspec.DecodeError, UnicodeError) as error:
            await _send(websocket, TerminalFrame("error", f"that is not a terminal frame: {error}"))
            continue
        if frame.type == "input":
            await shell.write(frame.data.encode("utf-8", "replace"))
        elif frame.type == "resize":
            await shell.resize(frame.rows, frame.cols)


async def _until_refused(call: Call) -> None:
    """Raise once the credential that opened the terminal would not open it any more."""
    raise Unauthenticated(await call.refused())


async def _send(websocket: WebSocket, frame: TerminalFrame) -> None:
    await websocket.send_text(msgspec.json.encode(frame).decode())
