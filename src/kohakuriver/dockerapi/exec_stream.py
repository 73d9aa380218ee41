"""A further process in a container: the engine's exec, with its connection taken over byte for byte.

Rules: output is read as fast as it is asked for and no faster, so whoever does not read holds the process
back; input can be half-closed; the process is known to have started, or why it has not, before it is handed
over. The engine lets a process live on when its connection goes, so closing hangs it up.
"""

import asyncio
import contextlib
import json
import signal
from collections import deque
from dataclasses import dataclass
from typing import Any

import structlog

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.exec_process import ExecProcess, end_of_container
from kohakuriver.dockerapi.upgraded import upgraded
from kohakuriver.models.enums import Flow
from kohakuriver.models.errors import EngineFault, InvalidInput, KohakuRiverError, Unavailable

BEST_SHELL = (
    "sh",
    "-c",
    "for s in bash ash; do command -v $s >/dev/null 2>&1 && exec $s -l; done; exec sh -l",
)
"""As a login shell; needs any shell in the image to find it."""

_PIECE_BYTES = 65536
_FRAME_HEAD_BYTES = 8
_MAX_SIDE = 4096
_SIZE_AT_START = (1, 42)
"""API from which on a terminal has its size before the process begins; with older ones a moment later."""

_MOST_REST_BYTES = 16 << 20
_START_SECONDS = 30.0
_EXIT_SECONDS = 5.0
_AT_ONCE_SECONDS = 0.2
_HANG_UP_SECONDS = 3.0
_LOOK_AGAIN_SECONDS = 0.02
_END_OF_TRANSMISSION = b"\x04"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ExecOptions:
    """What to run. `rows` and `cols` above 0: on a terminal. `user`, `working_dir` None: the container's."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    rows: int = 0
    cols: int = 0
    user: str | None = None
    working_dir: str | None = None

    @property
    def has_terminal(self) -> bool:
        return self.rows > 0 and self.cols > 0


class ExecNotStarted(EngineFault):
    """The engine could not start the process; the text is its own."""


class ExecStream:
    """One process. One reader and one writer at a time; `close` is free to call twice."""

    def __init__(self, api: DockerApi, container_id: str, exec_id: str, has_terminal: bool) -> None:
        self._api = api
        self._container_id = container_id
        self._id = exec_id
        self._has_terminal = has_terminal
        self._reader: asyncio.StreamReader = asyncio.StreamReader()
        self._writer: asyncio.StreamWriter | None = None
        self._flow = Flow.OUTPUT
        self._left_in_frame = 0
        self._read_ahead: deque[tuple[Flow, bytes]] = deque()
        self._reading = asyncio.Lock()
        self._at_end: asyncio.Task[None] | None = None
        self._closed = False
        self._has_started = False
        self._process: ExecProcess | None = None

    @classmethod
    async def open(
        cls, api: DockerApi, container_id: str, options: ExecOptions, first_pid: int = 0
    ) -> "ExecStream":
        """Start it; raises ExecNotStarted, Conflict for a container that does not run, NotFound.

        `first_pid`: of the container's first process. With it, output that nobody reads does not keep the
        engine from telling of the container's end.
        """
        body = _body(options)
        if options.has_terminal and api.api_version >= _SIZE_AT_START:
            body["ConsoleSize"] = [options.rows, options.cols]
        try:
            made = await api.json("POST", f"containers/{container_id}/exec", json=body)
        except EngineFault as error:
            raise ExecNotStarted(str(error)) from error
        stream = cls(api, container_id, str(made["Id"]), options.has_terminal)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await stream._take_over()
                await stream._until_started(options)
        except TimeoutError as error:
            await asyncio.shield(stream.close())
            raise Unavailable("the engine does not start the process in time; is it hanging?") from error
        except BaseException:
            await asyncio.shield(stream.close())
            raise
        if first_pid:
            stream._at_end = asyncio.create_task(stream._take_rest(first_pid))
        return stream

    async def read(self) -> tuple[Flow, bytes] | None:
        """Return what it wrote next, None after its last byte; raises Unavailable if the engine goes away."""
        async with self._reading:
            if self._read_ahead:
                return self._read_ahead.popleft()
            return await self._read_next()

    async def write(self, data: bytes) -> None:
        """Wait until the engine took it; raises Unavailable once the process has ended."""
        if self._writer is None or self._closed or self._reader.at_eof():
            raise Unavailable("the process has ended and takes no input")
        try:
            self._writer.write(data)
            await self._writer.drain()
        except (OSError, RuntimeError) as error:
            raise Unavailable("the process has ended and takes no input") from error

    async def close_input(self) -> None:
        """On a terminal, where input has no end of its own, the key that means it is pressed."""
        if self._has_terminal:
            await self.write(_END_OF_TRANSMISSION)
        elif self._writer is not None and not self._closed:
            with contextlib.suppress(OSError, RuntimeError):
                self._writer.write_eof()

    async def resize(self, rows: int, cols: int) -> None:
        """Tell a process that it has this much room; without effect on one that has ended."""
        if not self._has_terminal:
            return
        try:
            await self._resize(rows, cols)
        except KohakuRiverError as error:
            _log.debug("terminal_resize_refused", error=str(error))

    async def exit_status(self) -> int:
        """Known after the last byte; raises Unavailable if the engine does not tell it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_SECONDS):
                while (facts := await self._inspect())["Running"]:  # noqa: ASYNC110 - the engine's state
                    await asyncio.sleep(_LOOK_AGAIN_SECONDS)
                return int(facts["ExitCode"])
        raise Unavailable("the output of the process ended, and it did not")

    async def close(self) -> None:
        """Hang up: the process and what shares its terminal get SIGHUP, and SIGKILL if they stay."""
        if self._closed:
            return
        self._closed = True
        if self._at_end is not None:
            await _settle(self._at_end)
        process = self._process if self._has_started else await self._begun_process()
        hung_up = process is not None and process.signal_group(signal.SIGHUP)
        if self._writer is not None:
            self._writer.transport.abort()  # what is left to write or to read would keep it open
        if process is not None and hung_up and not await process.has_gone(_HANG_UP_SECONDS):
            process.signal_group(signal.SIGKILL)

    async def _take_over(self) -> None:
        body = json.dumps({"Detach": False, "Tty": self._has_terminal}).encode()
        try:
            self._reader, self._writer = await upgraded(self._api, f"exec/{self._id}/start", body)
        except EngineFault as error:  # as newer engines say what older ones write into the output
            raise ExecNotStarted(str(error)) from error

    async def _until_started(self, options: ExecOptions) -> None:
        """Resizing waits for the start, and the first output shows it too; a failure is both."""
        first = asyncio.ensure_future(self._read_next())
        sizing = asyncio.ensure_future(self._resize(options.rows, options.cols))
        try:
            await asyncio.wait([first, sizing], return_when=asyncio.FIRST_COMPLETED)
            facts = await self._inspect()
            while facts["Running"] and not facts["Pid"]:
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)
                facts = await self._inspect()
            if not facts["Pid"]:
                raise ExecNotStarted(await self._all_output(await first))
            self._has_started = True
            self._process = ExecProcess.of(facts["Pid"], self._container_id)
            if options.has_terminal:
                await asyncio.wait([sizing])
                if sizing.exception() is not None:
                    await self.resize(options.rows, options.cols)
        finally:
            await _settle(sizing)
            await self._keep(first)

    async def _take_rest(self, first_pid: int) -> None:
        """Once the container has ended: what is under way is no more than pipes and sockets hold."""
        await end_of_container(self._container_id, first_pid)
        taken = 0
        with contextlib.suppress(Unavailable):  # whoever reads is told
            while taken < _MOST_REST_BYTES:
                async with self._reading:
                    piece = await self._read_next()
                    if piece is None:
                        return
                    self._read_ahead.append(piece)
                taken += len(piece[1])

    async def _begun_process(self) -> ExecProcess | None:
        """What may have begun all the same where that was not waited for."""
        with contextlib.suppress(KohakuRiverError, TimeoutError):
            async with asyncio.timeout(_HANG_UP_SECONDS):
                return ExecProcess.of((await self._inspect())["Pid"], self._container_id)
        return None

    async def _keep(self, first: "asyncio.Future[tuple[Flow, bytes] | None]") -> None:
        """Take back a read that was begun; what it got comes first."""
        if not await _settle(first) and (piece := first.result()) is not None:
            self._read_ahead.append(piece)

    async def _all_output(self, piece: tuple[Flow, bytes] | None) -> str:
        text = b""
        while piece is not None and len(text) < _PIECE_BYTES:
            text += piece[1]
            piece = await self._read_next()
        return text.decode("utf-8", "replace").strip() or "the engine does not say why"

    async def _read_next(self) -> tuple[Flow, bytes] | None:
        try:
            if not self._has_terminal and self._left_in_frame == 0 and not await self._read_frame_head():
                return None
            wanted = _PIECE_BYTES if self._has_terminal else min(self._left_in_frame, _PIECE_BYTES)
            data = await self._reader.read(wanted)
        except OSError as error:
            raise Unavailable(f"the connection to the Docker engine broke ({error})") from error
        if not data:
            return None
        self._left_in_frame -= 0 if self._has_terminal else len(data)
        return self._flow, data

    async def _read_frame_head(self) -> bool:
        """Frames of output without a terminal: flow, three zeros, four bytes of length."""
        while self._left_in_frame == 0:
            try:
                head = await self._reader.readexactly(_FRAME_HEAD_BYTES)
            except asyncio.IncompleteReadError:
                return False
            self._flow = Flow.ERROR if head[0] == Flow.ERROR else Flow.OUTPUT
            self._left_in_frame = int.from_bytes(head[4:])
        return True

    async def _resize(self, rows: int, cols: int) -> None:
        size = {"h": str(min(max(rows, 1), _MAX_SIDE)), "w": str(min(max(cols, 1), _MAX_SIDE))}
        await self._api.json("POST", f"exec/{self._id}/resize", params=size)

    async def _inspect(self) -> dict[str, Any]:
        facts: dict[str, Any] = await self._api.json("GET", f"exec/{self._id}/json")
        return facts


async def launch(api: DockerApi, container_id: str, options: ExecOptions) -> int | None:
    """Start a process that nobody is attached to; return its status if it has ended by then.

    A moment is given to one that ends at once, since what it says is lost. Raises ExecNotStarted, Conflict
    for a container that does not run, NotFound.
    """
    body = {**_body(options), "AttachStdin": False, "AttachStdout": False, "AttachStderr": False}
    made = await api.json("POST", f"containers/{container_id}/exec", json=body)
    path = f"exec/{made['Id']}"
    try:
        async with asyncio.timeout(_START_SECONDS):
            await api.json("POST", f"{path}/start", json={"Detach": True, "Tty": False})
    except TimeoutError as error:
        raise Unavailable("the engine does not start the process in time; is it hanging?") from error
    except (EngineFault, InvalidInput) as error:
        raise ExecNotStarted(str(error)) from error
    deadline = asyncio.get_running_loop().time() + _AT_ONCE_SECONDS
    while (facts := await api.json("GET", f"{path}/json"))["Running"]:
        if asyncio.get_running_loop().time() > deadline:
            return None
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
    return int(facts["ExitCode"])


def _body(options: ExecOptions) -> dict[str, Any]:
    body: dict[str, Any] = {
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": options.has_terminal,
        "Env": [f"{name}={value}" for name, value in options.env],
        "Cmd": list(options.argv),
    }
    if options.has_terminal:
        body["Env"].insert(0, "TERM=xterm-256color")
    if options.user is not None:
        body["User"] = options.user
    if options.working_dir is not None:
        body["WorkingDir"] = options.working_dir
    return body


async def _settle(work: "asyncio.Future[Any]") -> bool:
    """Cancel it and wait until it is over; tell whether it was, or failed, before it gave a result."""
    work.cancel()
    await asyncio.wait([work])
    return work.cancelled() or work.exception() is not None
