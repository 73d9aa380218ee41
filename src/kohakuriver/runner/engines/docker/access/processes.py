"""Processes inside running workloads, as execs of the engine; see `engines.contract.processes` for the
contract.
"""

import asyncio

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.exec_stream import BEST_SHELL, ExecNotStarted, ExecOptions, ExecStream, launch
from kohakuriver.models.enums import Flow
from kohakuriver.models.errors import (
    Conflict,
    EngineFault,
    KohakuRiverError,
    NotFound,
    ProgramMissing,
    ProgramNotExecutable,
    Unavailable,
)
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.contract.processes import ExecRequest
from kohakuriver.runner.engines.docker.inside.of_vps import BUSYBOX
from kohakuriver.runner.engines.docker.inside.own_folder import ROOT, command_in_folder
from kohakuriver.runner.engines.docker.output.init_words import not_found
from kohakuriver.runner.engines.docker.workloads.containers import Inspected, WorkloadContainers
from kohakuriver.runner.engines.docker.workloads.end import send_to_all
from kohakuriver.runner.engines.docker.workloads.start_errors import start_fault

_SHELLS = (BEST_SHELL, (BUSYBOX, "sh", "-l"))
"""The second is there in VPSs, whatever their image holds."""

_KILLED = 137
_TOLD_TO_END = frozenset((129, _KILLED, 143))
"""What a process ends with that a kill of its workload has ended: SIGHUP, SIGKILL, SIGTERM."""
_END_SECONDS = 1.0
# What our own program ends with that goes to the working directory first, and the engine where there is none.
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127


class DockerProcesses:
    def __init__(self, api: DockerApi, workloads: WorkloadContainers) -> None:
        self._api = api
        self._workloads = workloads

    async def open(self, task_id: TaskId, request: ExecRequest) -> "DockerProcess":
        container = await self._running(task_id)
        if request.argv:
            return await self._start(container, request, request.argv)
        if container.goes_by_itself:
            return await self._start(container, request, (BUSYBOX, *BEST_SHELL))
        for shell in _SHELLS:
            try:
                return await self._start(container, request, shell)
            except ProgramMissing:
                continue
        raise EngineFault(
            "the image holds no shell; run one of its programs with `kohakuriver exec ID -- PROGRAM`"
        )

    async def launch(self, task_id: TaskId, request: ExecRequest) -> None:
        container = await self._running(task_id)
        asked = _asked(container, request, request.argv)
        try:
            status = await launch(self._api, container.id, asked)
        except ExecNotStarted as error:
            raise _fault(error, asked) from error
        if status == _NOT_FOUND:
            raise ProgramMissing(not_found(request.argv[0]))
        if status == _NOT_EXECUTABLE:
            raise ProgramNotExecutable(
                f"the command {request.argv[0]!r} cannot be executed, or its working directory cannot be used"
            )

    async def signal(self, task_id: TaskId, name: str) -> None:
        await send_to_all(self._workloads, await self._running(task_id), name)

    async def _running(self, task_id: TaskId) -> Inspected:
        try:
            container = await self._workloads.find(task_id)
        except NotFound as error:
            raise NotFound(f"no workload of task {task_id} is on this node") from error
        if container.state is WorkloadState.PAUSED:
            raise Conflict(f"task {task_id} is paused; resume it first")
        if container.state is not WorkloadState.RUNNING:
            raise Conflict(f"task {task_id} does not run, so nothing can be run in it")
        return container

    async def _start(
        self, container: Inspected, request: ExecRequest, argv: tuple[str, ...]
    ) -> "DockerProcess":
        asked = _asked(container, request, argv)
        try:
            stream = await ExecStream.open(self._api, container.id, asked, container.pid)
        except ExecNotStarted as error:
            raise _fault(error, asked) from error
        return DockerProcess(stream, self._workloads, container.id)


class DockerProcess:
    """See `engines.contract.processes.Process`."""

    def __init__(self, stream: ExecStream, workloads: WorkloadContainers, container_id: str) -> None:
        self._stream = stream
        self._workloads = workloads
        self._container_id = container_id

    async def read(self) -> tuple[Flow, bytes] | None:
        return await self._stream.read()

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)

    async def close_input(self) -> None:
        await self._stream.close_input()

    async def resize(self, rows: int, cols: int) -> None:
        await self._stream.resize(rows, cols)

    async def exit_status(self) -> int:
        try:
            status = await self._stream.exit_status()
        except NotFound as error:
            if await self._workload_ended():
                raise _ended_with_workload() from error
            raise Unavailable("the engine does not remember any more how the process ended") from error
        if status in _TOLD_TO_END and self._container_id in self._workloads.ending:
            raise _ended_with_workload()
        if status == _KILLED and await self._workload_ended():
            raise _ended_with_workload()
        return status

    async def close(self) -> None:
        try:
            await self._stream.close()
        except NotFound:
            return  # it went with its container

    async def _workload_ended(self) -> bool:
        """Its processes are killed first, and the engine hears a moment later that the container ended."""
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._workloads.wait_until_stopped(self._container_id)
        except TimeoutError:
            return False
        except NotFound:
            return True
        return True


def _asked(container: Inspected, request: ExecRequest, argv: tuple[str, ...]) -> ExecOptions:
    folder = request.working_dir
    if container.goes_by_itself and request.user is None:
        argv, folder = command_in_folder(argv, folder or container.working_dir), ROOT
    return ExecOptions(argv, request.env, request.rows, request.cols, request.user, folder)


def _ended_with_workload() -> Conflict:
    return Conflict("the workload has ended, and with it everything that ran in it")


def _fault(error: ExecNotStarted, request: ExecOptions) -> KohakuRiverError:
    text = str(error)
    if "unable to find user" in text or "unable to find group" in text:
        return EngineFault(f"the workload knows no user {request.user!r}")
    return start_fault(error, request.argv[0], request.working_dir or "")
