"""Workloads in Docker containers; see `engines.contract` for what is promised, `vps` for persistent ones.

The container joins the network namespace of a sandbox (`sandboxes.pool`); output is copied from the engine's
own journal (`output.copy`), so that nothing of it passes only through this process.

Hot path, in engine calls: create, start and a look at the start time; wait, look at the end; remove.
"""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import Conflict, EngineFault, KohakuRiverError, NotFound, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.abilities import EngineAbilities
from kohakuriver.runner.engines.contract.engine import (
    ExitResult,
    FoundWorkload,
    OrphanWorkload,
    WorkloadState,
)
from kohakuriver.runner.engines.contract.faults import LostByEngine
from kohakuriver.runner.engines.contract.spec import ImageChoice, ImageProvider, WorkloadSpec
from kohakuriver.runner.engines.docker.access.files import ContainerFiles
from kohakuriver.runner.engines.docker.access.inputs import DockerInputs
from kohakuriver.runner.engines.docker.access.ports import DockerPorts
from kohakuriver.runner.engines.docker.access.processes import DockerProcesses
from kohakuriver.runner.engines.docker.inside.guarded_binds import GuardedBinds
from kohakuriver.runner.engines.docker.inside.network_files import NetworkFiles
from kohakuriver.runner.engines.docker.inside.own_mounts import OwnMounts
from kohakuriver.runner.engines.docker.inside.user_accounts import ImageAccounts
from kohakuriver.runner.engines.docker.inside.vps_files import VpsFiles
from kohakuriver.runner.engines.docker.kernel.forgotten import end_forgotten
from kohakuriver.runner.engines.docker.labels import Owner
from kohakuriver.runner.engines.docker.orphans import Orphans
from kohakuriver.runner.engines.docker.output.engine_journal import journal_path
from kohakuriver.runner.engines.docker.sandboxes.containers import SandboxContainers
from kohakuriver.runner.engines.docker.sandboxes.ground import SandboxGround
from kohakuriver.runner.engines.docker.sandboxes.of_vps import VpsSandboxes
from kohakuriver.runner.engines.docker.sandboxes.pool import SandboxPool
from kohakuriver.runner.engines.docker.settings import DockerEngineSettings
from kohakuriver.runner.engines.docker.snapshots.snapshots import Snapshots
from kohakuriver.runner.engines.docker.traits import read_traits
from kohakuriver.runner.engines.docker.vps.vps import DockerVps, DockerVpsParts
from kohakuriver.runner.engines.docker.watch import EngineWatch
from kohakuriver.runner.engines.docker.workloads.body import EngineTraits
from kohakuriver.runner.engines.docker.workloads.containers import (
    Listed,
    WorkloadContainers,
    unused_sandboxes,
)
from kohakuriver.runner.engines.docker.workloads.end import bring_to_end
from kohakuriver.runner.engines.docker.workloads.follow import WorkloadFollower
from kohakuriver.runner.engines.docker.workloads.known_containers import (
    KnownContainer,
    KnownContainers,
    check_attempt,
)
from kohakuriver.runner.engines.docker.workloads.making import Making, MakingParts
from kohakuriver.runner.engines.docker.workloads.start import start_in_sandbox
from kohakuriver.runner.engines.docker.workloads.start_errors import start_fault
from kohakuriver.runner.engines.docker.workloads.start_turns import StartTurns
from kohakuriver.runner.engines.docker.workloads.task_locks import TaskLocks
from kohakuriver.runner.engines.steps import take_steps
from kohakuriver.runner.network.bridge_filter import BridgeFilter
from kohakuriver.runner.network.docker_network import remove_old_networks
from kohakuriver.runner.tunnels.sandbox_tunnels import SandboxTunnels

# Looking at a container waits for its exit to be handled, so a command that ends at once would delay the
# report of its start; past this the local clock serves, and `wait` tells the engine's time.
_START_TIME_SECONDS = 0.01
# Copies to storage that may hang; they wait their turn here and nowhere else.
_OUTPUT_THREADS = 16

_log = structlog.get_logger()
_T = TypeVar("_T")


class DockerEngine:
    """One per runner; `open` before all else. `api` stays the caller's to close."""

    abilities = EngineAbilities()

    def __init__(
        self, api: DockerApi, settings: DockerEngineSettings, images: ImageProvider, tunnels: SandboxTunnels
    ) -> None:
        self._api = api
        self._settings = settings
        self._images = images
        self._owner = Owner(settings.node_name, settings.cluster_ids)
        self.workloads = WorkloadContainers(api, self._owner)
        self._network = settings.wanted_network
        self.bridge_filter = BridgeFilter(settings.egress, settings.network_gateway)
        ground = SandboxGround(api, self._network, self.bridge_filter, settings.tunnel_client)
        self._tunnels = tunnels
        self.sandboxes = SandboxContainers(api, self._owner, ground, settings, tunnels)
        self.pool = SandboxPool(self.sandboxes, settings.pool_size, settings.idle_trim_seconds)
        self._files = NetworkFiles(settings.state_dir)
        self._binds = GuardedBinds.of_runner(settings.node_name, settings.state_dir, settings.guarded_folders)
        self.files = ContainerFiles(api, self.workloads, self._binds.refresh)
        self.known_containers = KnownContainers(self.workloads, self.sandboxes, settings.state_dir)
        self._orphans = Orphans(api, self._owner, self.workloads, settings.state_dir)
        self._locks = TaskLocks()
        self.own_sandboxes = VpsSandboxes(self.sandboxes, settings.network_subnet, self.pool)
        self._vps_files = VpsFiles(settings.state_dir, self._files)
        self._own_mounts = OwnMounts(settings, self._files, self._vps_files)
        self.accounts = ImageAccounts(api, self._owner)
        self.snapshots = Snapshots(api)
        self.ports = DockerPorts(self.sandboxes, self.known_containers, tunnels)
        self.vps = DockerVps(api, self._vps_parts())
        self._traits = EngineTraits()
        self._docker_root = Path("/var/lib/docker")
        self._threads = ThreadPoolExecutor(_OUTPUT_THREADS, thread_name_prefix="output")
        self._turns = StartTurns()
        self._making = self._making_parts(images)
        self._follower = WorkloadFollower(self.workloads, self.sandboxes, self._threads)
        self._watch = EngineWatch(api)
        self._jobs: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        self._traits, self._docker_root = await read_traits(self._api)
        await self._orphans.open()
        listed = await self.workloads.list_all()
        idle = await self._prepare_network(listed)
        await self.known_containers.load(listed)
        await self.bridge_filter.open()
        await self.accounts.clear()
        await asyncio.to_thread(self._own_mounts.remove_all_but, self.known_containers.ids())
        await self.sandboxes.remove_records_but(
            {row.id: row.tunnel_key for row in listed if row.task_id is None}
        )
        await self.pool.open(idle)
        self._tunnels.is_ready = True
        await self._orphans.look()
        watching = [self._orphans.watch(), self._watch.run()]
        work = [*watching, self._binds.refresh_at_start(), self.sandboxes.remove_old_images()]
        self._jobs = [asyncio.create_task(each) for each in work]

    async def _prepare_network(self, listed: list[Listed]) -> list[str]:
        """Bring network and image to the desired state; return the idle sandboxes that can go on in it."""
        unused = unused_sandboxes(listed)
        fitting = [row for row in unused if row.network == self._network.name and not row.for_vps]
        idle = [row.id for row in fitting]

        async def clear_idle() -> None:
            while idle:
                await self.sandboxes.destroy(idle[-1])
                idle.pop()

        for row in unused:
            if row not in fitting:
                await self.sandboxes.destroy(row.id)
        await self.sandboxes.prepare_ground(clear_idle)
        await remove_old_networks(self._api, self._network)
        return idle

    @property
    def data_root(self) -> Path:
        """The engine's folder of images, containers and journals."""
        return self._docker_root

    def _vps_parts(self) -> DockerVpsParts:
        containers = (self.workloads, self.sandboxes, self.known_containers, self._locks)
        return DockerVpsParts(*containers, self._files, self._vps_files, self.snapshots, self.ports)

    def _making_parts(self, images: ImageProvider) -> MakingParts:
        return MakingParts(
            self._api,
            self._owner,
            images,
            self.snapshots,
            self.pool,
            self.own_sandboxes,
            self._binds,
            self.accounts,
            self._own_mounts,
            self.workloads,
            self.known_containers,
            self._turns,
            self._threads,
        )

    @property
    def inputs(self) -> DockerInputs:
        return DockerInputs(self._api, self.workloads, self.known_containers)

    @property
    def processes(self) -> DockerProcesses:
        return DockerProcesses(self._api, self.workloads)

    async def stop_jobs(self) -> None:
        """End what is done in the background, and nothing else."""
        for job in self._jobs:
            job.cancel()
        if self._jobs:
            await asyncio.wait(self._jobs)

    async def close(self) -> None:
        await self.stop_jobs()
        self.files.close()
        await self.pool.close()
        await self.bridge_filter.close()
        self.sandboxes.close()
        self.known_containers.close()
        if not self.known_containers.ids():  # the engine mounts them for a moment whenever files are copied
            await asyncio.to_thread(self._binds.remove)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def faults(self) -> list[str]:
        if self._watch.fault:
            return [self._watch.fault]  # what else does not work follows from that
        return self.pool.faults() + self._follower.faults()

    def notices(self) -> list[str]:
        """What the node's administrator should know, and what keeps no work away."""
        return self._binds.notices() + self.bridge_filter.notices()

    async def prefetch(self, image: ImageChoice, on_progress: Callable[[str], None]) -> None:
        """Bring the current image onto this node; one sync per image at a time."""
        await self._images.ensure(image, on_progress)

    async def list_workloads(self) -> list[FoundWorkload]:
        return [found for row in await self.workloads.list_all() if (found := row.workload)]

    def orphans(self) -> list[OrphanWorkload]:
        return self._orphans.running()

    async def take_over(self, nodes: Iterable[str]) -> list[FoundWorkload]:
        listed = await self._orphans.under(nodes := list(nodes))
        # Before it is ours, or a call that fails would leave it unknown.
        await self.known_containers.take_in(listed)
        await self._orphans.take_over(nodes)
        for row in unused_sandboxes(listed):
            self.pool.doom(row.id)
        return [found for row in listed if (found := row.workload)]

    async def create(self, spec: WorkloadSpec, on_progress: Callable[[str], None]) -> str | None:
        async with self._locks.of(spec.task_id):
            known = self.known_containers.get(spec.task_id)
            if known is not None and not await self._is_leftover(spec, known):
                check_attempt(known.attempt, spec.attempt, spec.task_id)
                return None
            if known is not None:
                await self._remove(spec.task_id, known)
            making = Making(self._making, spec, self._traits, on_progress)
            await take_steps(making.steps(), spec.task_id)
            self.known_containers.put(spec.task_id, making.known)
            return making.digest

    async def _is_leftover(self, spec: WorkloadSpec, known: KnownContainer) -> bool:
        """Whether it is what an earlier run of a VPS left, and does not run, or can never be started."""
        is_of_earlier_run = spec.session is not None and known.attempt < spec.attempt
        has_no_sandbox = known.sandbox is None and known.attempt == spec.attempt
        if not is_of_earlier_run and not has_no_sandbox:
            return False
        facts = await self.workloads.inspect(known.id)
        return facts.state is WorkloadState.CREATED or (
            is_of_earlier_run and facts.state is WorkloadState.EXITED
        )

    async def start(self, task_id: TaskId, attempt: int) -> datetime:
        async with self._locks.of(task_id):
            known = await self.known_containers.find(task_id, attempt)
            unanswered = None if known.never_started else journal_path(self._docker_root, known.id)
            if unanswered is not None:
                facts = await self.workloads.inspect(known.id)
                if facts.state is not WorkloadState.CREATED:
                    return facts.started_at or datetime.now(UTC)
                known.command, known.working_dir = facts.command, facts.working_dir
                # The mounts that it was made with may be gone since, by a reboot or by hand.
                await self._in_thread(self._binds.refresh)
            known.never_started = False
            try:
                await self._start_in_sandbox(known, unanswered)
            except KohakuRiverError as error:
                if isinstance(error, LostByEngine):
                    raise
                if isinstance(error, Unavailable):
                    known.unclear = True
                    # It may run all the same, and end before there is an engine to ask.
                    await self._in_thread(known.pipes.hold, 0)
                raise start_fault(error, known.command, known.working_dir) from error
            return await self._started_at(known.id)

    async def _start_in_sandbox(self, known: KnownContainer, unanswered: Path | None) -> None:
        if known.sandbox is not None:
            await self._tunnels.arrivals.until_connected(known.sandbox.id)
        parts = (self.workloads, self.sandboxes, known.id, known.sandbox)
        async with self._turns.one():
            await start_in_sandbox(*parts, unanswered=unanswered)

    async def _started_at(self, container_id: str) -> datetime:
        now = datetime.now(UTC)
        try:
            async with asyncio.timeout(_START_TIME_SECONDS):
                return (await self.workloads.inspect(container_id)).started_at or now
        except (TimeoutError, KohakuRiverError):
            return now

    async def wait(self, spec: WorkloadSpec) -> ExitResult:
        known = await self.known_containers.find(spec.task_id, spec.attempt)
        return await self._follower.follow(spec, known, journal_path(self._docker_root, known.id))

    async def stop(self, task_id: TaskId, attempt: int, grace_seconds: float) -> None:
        async with self._locks.of(task_id):
            known = await self.known_containers.find(task_id, attempt)
            known.never_started = False
        await bring_to_end(self.workloads, known.id, grace_seconds)

    async def pause(self, task_id: TaskId, attempt: int) -> None:
        async with self._locks.of(task_id):
            known = await self.known_containers.find(task_id, attempt)
            try:
                await self.workloads.pause(known.id)
            except Conflict as error:
                if "already paused" not in str(error):
                    raise EngineFault(f"the workload cannot be paused: {error}") from error

    async def resume(self, task_id: TaskId, attempt: int) -> None:
        async with self._locks.of(task_id):
            known = await self.known_containers.find(task_id, attempt)
            try:
                await self.workloads.unpause(known.id)
            except (Conflict, EngineFault) as error:
                if "is not paused" not in str(error):
                    raise EngineFault(f"the workload cannot be resumed: {error}") from error

    async def remove(self, task_id: TaskId, attempt: int) -> None:
        async with self._locks.of(task_id):
            try:
                known = await self.known_containers.find(task_id, attempt)
            except NotFound:
                await self._in_thread(self._own_mounts.remove, task_id)
                await self.snapshots.sweep(task_id)  # an earlier runner may have got no further
                return
            await self._remove(task_id, known)

    async def _remove(self, task_id: TaskId, known: KnownContainer) -> None:
        try:
            await self.workloads.remove(known.id)
        except Unavailable:
            known.unclear = True
            raise
        if known.unclear:
            await self._in_thread(end_forgotten, known.id)
        reach(CrashPoint.RUNNER_CONTAINER_REMOVED)
        await self._in_thread(self._let_go, task_id, known)
        self.known_containers.drop(task_id)
        if known.sandbox is not None:
            self._tunnels.end_tunnels(known.sandbox.id)
            await self.pool.give_back(known.sandbox, reusable=not known.network_rights)
        if known.is_vps:
            await self.snapshots.sweep(task_id)  # what it stood on, if that was deleted since

    def _let_go(self, task_id: TaskId, known: KnownContainer) -> None:
        self._own_mounts.remove(task_id)
        known.pipes.drop()

    async def _in_thread(self, work: Callable[..., _T], *args: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
