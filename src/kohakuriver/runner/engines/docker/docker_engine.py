"""Command tasks in Docker containers; see `engines.base` for the contract.

The workload's container joins the network namespace of a sandbox (`sandbox_pool`), and its output is copied
from the engine's own journal (`output_copy`), so that nothing of it passes through this process alone.

Hot path, in engine calls: create, start and a look at the start time; wait, look at the end; remove. What is
held in memory is a copy of what the labels say, read again when an engine object is opened.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import Conflict, EngineFault, KohakuRiverError, NotFound, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.models.mounts import Mount
from kohakuriver.models.names import task_container_name
from kohakuriver.runner.engines.base import (
    ExitResult,
    FoundWorkload,
    ImageChoice,
    ImageProvider,
    LostByEngine,
    WorkloadSpec,
    WorkloadState,
)
from kohakuriver.runner.engines.docker.container_body import EngineTraits, Placement, container_body
from kohakuriver.runner.engines.docker.engine_journal import journal_path
from kohakuriver.runner.engines.docker.engine_traits import read_traits
from kohakuriver.runner.engines.docker.engine_watch import EngineWatch
from kohakuriver.runner.engines.docker.forgotten_tasks import end_forgotten
from kohakuriver.runner.engines.docker.held_pipes import HeldPipes
from kohakuriver.runner.engines.docker.network_files import NetworkFiles
from kohakuriver.runner.engines.docker.output_copy import OutputCopy
from kohakuriver.runner.engines.docker.output_files import reset_output
from kohakuriver.runner.engines.docker.sandbox_containers import Sandbox, SandboxContainers
from kohakuriver.runner.engines.docker.sandbox_ground import SandboxGround
from kohakuriver.runner.engines.docker.sandbox_pool import SandboxPool
from kohakuriver.runner.engines.docker.settings import DockerEngineSettings
from kohakuriver.runner.engines.docker.start_errors import (
    create_fault,
    init_fault,
    start_fault,
)
from kohakuriver.runner.engines.docker.start_turns import StartTurns
from kohakuriver.runner.engines.docker.task_locks import TaskLocks
from kohakuriver.runner.engines.docker.workload_containers import Inspected, Listed, WorkloadContainers
from kohakuriver.runner.engines.docker.workload_create import create_anew
from kohakuriver.runner.engines.docker.workload_end import bring_to_end, fell_with_engine, until_exit
from kohakuriver.runner.engines.docker.workload_start import start_in_sandbox
from kohakuriver.runner.engines.storage_faults import storage_fault
from kohakuriver.runner.network.docker_network import WantedNetwork, remove_old_networks

# Looking at a container waits for its exit to be handled, so a command that ends at once would delay the
# report of its start; past this the local clock serves, and `wait` tells the engine's time.
_START_TIME_SECONDS = 0.01
# Copies to storage that may hang; they wait their turn here and nowhere else.
_OUTPUT_THREADS = 16

_log = structlog.get_logger()
_T = TypeVar("_T")
_FELL = "the Docker engine or the node was restarted, and that ended it"
_UNKNOWN_END = "the Docker engine was restarted and does not know how it ended"
_UNKNOWN_STATUS = 255  # what an engine says of a container that ended without it, if nobody kept the status


@dataclass(slots=True)
class _Held:
    """What is known of a container. `never_started`: made by this object, and no start was tried yet.
    `unclear`: the engine went away while it was told to start or remove it, and may have forgotten it.
    """

    id: str
    attempt: int
    sandbox: Sandbox | None
    network_rights: bool
    never_started: bool = False
    command: str = ""
    working_dir: str = ""
    pipes: HeldPipes = field(default_factory=HeldPipes)
    engine_was_away: bool = False
    unclear: bool = False


class DockerEngine:
    """One per runner; `open` before all else. `api` stays the caller's to close."""

    def __init__(self, api: DockerApi, settings: DockerEngineSettings, images: ImageProvider) -> None:
        self._api = api
        self._settings = settings
        self._images = images
        self._workloads = WorkloadContainers(api, settings.node_name)
        self._network = WantedNetwork(
            settings.network_name, settings.network_subnet, settings.network_gateway, settings.node_name
        )
        self._sandboxes = SandboxContainers(
            api, settings.node_name, SandboxGround(api, self._network), settings.state_dir
        )
        self._pool = SandboxPool(self._sandboxes, settings.pool_size, settings.idle_trim_seconds)
        self._files = NetworkFiles(settings.state_dir)
        self._held: dict[TaskId, _Held] = {}
        self._locks = TaskLocks()
        self._traits = EngineTraits()
        self._docker_root = Path("/var/lib/docker")
        self._threads = ThreadPoolExecutor(_OUTPUT_THREADS, thread_name_prefix="output")
        self._turns = StartTurns()
        self._copies: set[OutputCopy] = set()
        self._watch = EngineWatch(api)
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._traits, self._docker_root = await read_traits(self._api)
        listed = await self._workloads.list_all()
        idle = await self._prepare_network(listed)
        for row in listed:
            if row.task_id is not None:
                sandbox = await self._sandbox_of(row.sandbox_id)
                self._held[row.task_id] = _Held(row.id, row.attempt, sandbox, row.network_rights)
        await asyncio.to_thread(self._files.remove_all_but, set(self._held))
        await self._sandboxes.remove_records_but({row.id for row in listed if row.task_id is None})
        await self._pool.open(idle)
        self._watching = asyncio.create_task(self._watch.run(), name="engine watch")

    async def _prepare_network(self, listed: list[Listed]) -> list[str]:
        """Bring network and image to the desired state; return the idle sandboxes that can go on in it."""
        in_use = {row.sandbox_id for row in listed if row.task_id is not None}
        unused = [row for row in listed if row.task_id is None and row.id not in in_use]
        idle = [row.id for row in unused if row.network == self._network.name]

        async def clear_idle() -> None:
            while idle:
                await self._sandboxes.destroy(idle[-1])
                idle.pop()

        for row in unused:
            if row.network != self._network.name:
                await self._sandboxes.destroy(row.id)
        await self._sandboxes.prepare_ground(clear_idle)
        await remove_old_networks(self._api, self._network)
        return idle

    @property
    def data_root(self) -> Path:
        """The engine's folder of images, containers and journals."""
        return self._docker_root

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await self._pool.close()
        self._sandboxes.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def faults(self) -> list[str]:
        if self._watch.fault:
            return [self._watch.fault]  # what else does not work follows from that
        waiting = [copy.fault for copy in self._copies if copy.fault]
        output = [f"{waiting[0]} (output of {len(waiting)} tasks waits)"] if waiting else []
        return self._pool.faults() + output

    async def prefetch(self, image: ImageChoice, on_progress: Callable[[str], None]) -> None:
        await self._images.ensure(image, on_progress)

    async def list_workloads(self) -> list[FoundWorkload]:
        return [
            FoundWorkload(row.task_id, row.attempt, row.state)
            for row in await self._workloads.list_all()
            if row.task_id is not None
        ]

    async def create(self, spec: WorkloadSpec, on_progress: Callable[[str], None]) -> None:
        async with self._locks.of(spec.task_id):
            held = self._held.get(spec.task_id)
            if held is not None:
                _check_attempt(held.attempt, spec.attempt, spec.task_id)
                return
            image = await self._images.ensure(spec.image, on_progress)
            reach(CrashPoint.RUNNER_IMAGE_READY)
            sandbox = await self._pool.take()
            reach(CrashPoint.RUNNER_SANDBOX_TAKEN)
            try:
                held = await self._create_in(spec, image, sandbox)
            except BaseException:
                await asyncio.shield(self._undo_create(spec, sandbox))
                raise
            self._held[spec.task_id] = held

    async def _create_in(self, spec: WorkloadSpec, image: str, sandbox: Sandbox) -> _Held:
        mounts = await self._in_thread(self._prepare_files, spec, sandbox)
        reach(CrashPoint.RUNNER_FILES_PREPARED)
        placement = Placement(self._settings.node_name, image, sandbox.id, mounts)
        body = container_body(spec, placement, self._traits)
        try:
            async with self._turns.one():
                container_id = await create_anew(self._workloads, spec, body)
        except Conflict as error:
            raise EngineFault(f"the engine refused the container: {error}") from error
        except KohakuRiverError as error:
            raise create_fault(error, spec, image) from error
        return _Held(
            container_id, spec.attempt, sandbox, spec.privileged, True, spec.argv[0], spec.working_dir
        )

    def _prepare_files(self, spec: WorkloadSpec, sandbox: Sandbox) -> tuple[Mount, ...]:
        reset_output(spec.stdout_path, spec.stderr_path)
        try:
            return self._files.write(spec.task_id, sandbox.hostname, sandbox.address)
        except OSError as error:
            folder = self._settings.state_dir
            raise storage_fault("the network files of a workload", folder, error) from error

    async def _undo_create(self, spec: WorkloadSpec, sandbox: Sandbox) -> None:
        """The call may have reached the engine: look, and leave neither container nor files."""
        is_gone = False
        try:
            facts = await self._workloads.inspect(task_container_name(spec.task_id))
            if facts.sandbox_id == sandbox.id:
                await self._workloads.remove(facts.id)
            is_gone = True
        except (NotFound, Conflict):
            is_gone = True
        except KohakuRiverError as error:
            _log.warning("create_not_undone", task_id=str(spec.task_id), error=str(error))
        finally:
            await self._in_thread(self._files.remove, spec.task_id)
            await self._pool.give_back(sandbox, reusable=is_gone)

    async def start(self, task_id: TaskId, attempt: int) -> datetime:
        async with self._locks.of(task_id):
            held = await self._find(task_id, attempt)
            if not held.never_started:
                facts = await self._workloads.inspect(held.id)
                if facts.state is not WorkloadState.CREATED:
                    return facts.started_at or datetime.now(UTC)
                held.command, held.working_dir = facts.command, facts.working_dir
            held.never_started = False
            try:
                await self._start_in_sandbox(held)
            except KohakuRiverError as error:
                if isinstance(error, LostByEngine):
                    raise
                if isinstance(error, Unavailable):
                    held.unclear = True
                    # It may run all the same, and end before there is an engine to ask.
                    await self._in_thread(held.pipes.hold, held.id, 0)
                raise start_fault(error, held.command, held.working_dir) from error
            return await self._started_at(held.id)

    async def _start_in_sandbox(self, held: _Held) -> None:
        async with self._turns.one():
            await start_in_sandbox(self._workloads, self._sandboxes, held.id, held.sandbox)

    async def _started_at(self, container_id: str) -> datetime:
        now = datetime.now(UTC)
        try:
            async with asyncio.timeout(_START_TIME_SECONDS):
                return (await self._workloads.inspect(container_id)).started_at or now
        except (TimeoutError, KohakuRiverError):
            return now

    async def wait(self, spec: WorkloadSpec) -> ExitResult:
        held = await self._find(spec.task_id, spec.attempt)
        journal = journal_path(self._docker_root, held.id)
        copy = OutputCopy(journal, spec.stdout_path, spec.stderr_path, self._threads)
        ended = asyncio.Event()

        async def hold(pid: int) -> None:
            held.engine_was_away |= not pid
            await self._in_thread(held.pipes.hold, held.id, pid)

        self._copies.add(copy)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(copy.follow(ended))
                facts = await until_exit(self._workloads, held.id, hold)
                ended.set()
            stdout_bytes, stderr_bytes = await copy.finish(held.pipes.rest())
        except BaseExceptionGroup as failed:
            raise _first_of(failed) from failed
        finally:
            copy.close()
            self._copies.discard(copy)
            held.pipes.close()
        loss = await self._loss(held, facts)
        not_executed = await self._in_thread(init_fault, facts.exit_code, spec.stderr_path, spec.argv[0])
        finished = facts.finished_at or datetime.now(UTC)
        return ExitResult(
            exit_code=facts.exit_code,
            oom_killed=facts.oom_killed,
            started_at=facts.started_at or finished,
            finished_at=finished,
            stdout_bytes=stdout_bytes,
            stderr_bytes=stderr_bytes,
            error=loss or not_executed or facts.error or None,
            lost_to_system=loss is not None,
        )

    async def _loss(self, held: _Held, facts: Inspected) -> str | None:
        """Say so if the workload's end, or what is known of it, is the engine's doing."""
        if await fell_with_engine(self._sandboxes, held.sandbox, facts):
            return _FELL
        return _UNKNOWN_END if held.engine_was_away and facts.exit_code == _UNKNOWN_STATUS else None

    async def stop(self, task_id: TaskId, attempt: int, grace_seconds: float) -> None:
        async with self._locks.of(task_id):
            held = await self._find(task_id, attempt)
            held.never_started = False
            await bring_to_end(self._workloads, held.id, grace_seconds)

    async def pause(self, task_id: TaskId, attempt: int) -> None:
        async with self._locks.of(task_id):
            held = await self._find(task_id, attempt)
            try:
                await self._workloads.pause(held.id)
            except Conflict as error:
                if "already paused" not in str(error):
                    raise EngineFault(f"the workload cannot be paused: {error}") from error

    async def resume(self, task_id: TaskId, attempt: int) -> None:
        async with self._locks.of(task_id):
            held = await self._find(task_id, attempt)
            try:
                await self._workloads.unpause(held.id)
            except (Conflict, EngineFault) as error:
                if "is not paused" not in str(error):
                    raise EngineFault(f"the workload cannot be resumed: {error}") from error

    async def remove(self, task_id: TaskId, attempt: int) -> None:
        async with self._locks.of(task_id):
            try:
                held = await self._find(task_id, attempt)
            except NotFound:
                await self._in_thread(self._files.remove, task_id)
                return
            try:
                await self._workloads.remove(held.id)
            except Unavailable:
                held.unclear = True
                raise
            if held.unclear:
                await self._in_thread(end_forgotten, held.id)
            reach(CrashPoint.RUNNER_CONTAINER_REMOVED)
            await self._in_thread(self._files.remove, task_id)
            self._held.pop(task_id, None)
            held.pipes.close()
            if held.sandbox is not None:
                await self._pool.give_back(held.sandbox, reusable=not held.network_rights)

    async def _find(self, task_id: TaskId, attempt: int) -> _Held:
        """Raises NotFound, or EngineFault for another attempt; `attempt` 0 is any."""
        held = self._held.get(task_id)
        if held is None:
            facts = await self._workloads.inspect(task_container_name(task_id))
            sandbox = await self._sandbox_of(facts.sandbox_id)
            held = _Held(facts.id, facts.attempt, sandbox, facts.network_rights)
            self._held[task_id] = held
        _check_attempt(held.attempt, attempt, task_id)
        return held

    async def _sandbox_of(self, sandbox_id: str | None) -> Sandbox | None:
        if sandbox_id is None:
            return None
        try:
            return await self._sandboxes.read(sandbox_id)
        except NotFound:
            return None

    async def _in_thread(self, work: Callable[..., _T], *args: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)


def _check_attempt(held: int, asked: int, task_id: TaskId) -> None:
    if asked not in (0, held):
        raise EngineFault(f"task {task_id} is here as attempt {held}, and the call is for attempt {asked}")


def _first_of(failed: BaseExceptionGroup) -> BaseException:
    """The failure that ended the others."""
    first = failed.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first
