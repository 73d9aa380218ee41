"""Processes inside workloads of the fake machine; see `engines.contract.processes` for the contract.

Commands, by argument vector: `cat` (input to output); `print TEXT` and `complain TEXT`; `exit STATUS`;
`flood BYTES`; `sleep SECONDS`; `suicide` (SIGKILL by its own hand); `missing` (cannot be started). The shell
takes these and `set TEXT`, `get` and `size` as lines, and says any other line back.
"""

import asyncio
import contextlib

from kohakuriver.models.enums import Flow
from kohakuriver.models.errors import Conflict, NotFound, ProgramMissing, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.contract.processes import ExecRequest
from kohakuriver.runner.engines.fake.machine import FakeMachine, FakeWorkload

_HELD_PIECES = 2
_PIECE_BYTES = 65536
_HUNG_UP = 129


class FakeProcesses:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    async def open(self, task_id: TaskId, request: ExecRequest) -> "FakeProcess":
        workload = self._running(task_id)
        if request.argv[:1] == ("missing",):
            raise ProgramMissing("the command 'missing' was not found in the image")
        return FakeProcess(workload, request)

    async def launch(self, task_id: TaskId, request: ExecRequest) -> None:
        process = await self.open(task_id, request)
        await process.close_input()
        self._machine.launched.append(process.forget())

    async def signal(self, task_id: TaskId, name: str) -> None:
        self._running(task_id).signal(name)

    def _running(self, task_id: TaskId) -> FakeWorkload:
        workload = self._machine.workloads.get(task_id)
        if workload is None:
            raise NotFound(f"no workload of task {task_id} is here")
        if workload.state is WorkloadState.PAUSED:
            raise Conflict(f"task {task_id} is paused; resume it first")
        if workload.state is not WorkloadState.RUNNING:
            raise Conflict(f"task {task_id} does not run, so nothing can be run in it")
        return workload


class FakeProcess:
    """Runs as a task of this object's own, which `close` ends."""

    def __init__(self, workload: FakeWorkload, request: ExecRequest) -> None:
        self._workload = workload
        self._request = request
        self._size = (request.rows, request.cols)
        self._kept = ""
        self._input: asyncio.Queue[bytes] = asyncio.Queue(_HELD_PIECES)
        self._output: asyncio.Queue[tuple[Flow, bytes]] = asyncio.Queue(_HELD_PIECES)
        self._stirred = asyncio.Event()
        self._status: int | None = None
        self._life = asyncio.get_running_loop().create_task(self._live(), name="fake process")
        self._life.add_done_callback(lambda _: self._stirred.set())

    async def read(self) -> tuple[Flow, bytes] | None:
        while self._output.empty():
            if self._life.done():
                return None
            self._stirred.clear()
            await self._stirred.wait()
        return self._output.get_nowait()

    async def write(self, data: bytes) -> None:
        if self._life.done():
            raise Unavailable("the process has ended and takes no input")
        if data:
            await self._input.put(data)

    async def close_input(self) -> None:
        await self._input.put(b"")

    async def resize(self, rows: int, cols: int) -> None:
        self._size = (rows, cols)

    async def exit_status(self) -> int:
        if self._status is None:
            raise Conflict("the workload has ended, and with it everything that ran in it")
        return self._status

    async def close(self) -> None:
        if not self._life.done():
            self._status = _HUNG_UP
            self._life.cancel()
            await asyncio.wait([self._life])

    def forget(self) -> asyncio.Task[None]:
        """Let it go on with nobody who reads."""
        return asyncio.get_running_loop().create_task(self._drain(), name="launched process")

    async def _drain(self) -> None:
        while await self.read() is not None:
            continue

    async def _live(self) -> None:
        work = asyncio.ensure_future(self._work())
        end = asyncio.ensure_future(self._until_workload_ends())
        try:
            await asyncio.wait([work, end], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                self._status = work.result()
        finally:
            work.cancel()
            end.cancel()

    async def _until_workload_ends(self) -> None:
        while self._workload.state is not WorkloadState.EXITED:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._workload.seconds_left):
                    await self._workload.changes.wait()

    async def _work(self) -> int:
        if self._request.argv:
            return await self._command(self._request.argv[0], " ".join(self._request.argv[1:]))
        rest = b""
        while data := await self._input.get():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                word, _, argument = line.decode().partition(" ")
                if word == "exit":
                    return int(argument or 0)
                await self._command(word, argument)
        return 0

    async def _command(self, word: str, argument: str) -> int:
        said = {"size": "{} {}\n".format(*self._size), "get": f"{self._kept}\n", "print": argument}
        match word:
            case "cat":
                while data := await self._input.get():
                    await self._say(data)
            case "complain":
                await self._say(argument.encode(), Flow.ERROR)
            case "exit":
                return int(argument)
            case "suicide":
                return 137
            case "set":
                self._kept = argument
            case "sleep":
                await asyncio.sleep(float(argument))
            case "flood":
                for begin in range(0, int(argument), _PIECE_BYTES):
                    await self._say(b"x" * min(_PIECE_BYTES, int(argument) - begin))
            case _:
                await self._say(said.get(word, f"{word} {argument}".strip() + "\n").encode())
        return 0

    async def _say(self, data: bytes, flow: Flow = Flow.OUTPUT) -> None:
        await self._output.put((flow, data))
        self._stirred.set()
