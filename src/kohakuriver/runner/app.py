"""Composition root of the runner: the one file that builds its parts from the settings and joins them.

Nothing is bound, made or contacted before the settings were checked. The parts run in one TaskGroup; its end,
on SIGTERM or SIGINT, leaves workloads running.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from kohakuriver.config import RunnerConfig, values_that_must_match
from kohakuriver.crash_points import CrashPoint, arm_from, reach
from kohakuriver.heap import keep_little
from kohakuriver.models.errors import InvalidInput, KohakuRiverError
from kohakuriver.models.spec.targets import is_hostname
from kohakuriver.node_folders import (
    IDENTITY_FILE,
    folder_of_this_machine,
    mark_folder,
    runner_folders,
    this_machine,
)
from kohakuriver.oom_score import protect_this_process
from kohakuriver.runner.agent.agent import Agent
from kohakuriver.runner.agent.agent_parts import AgentParts
from kohakuriver.runner.agent.durable_book import DurableBook
from kohakuriver.runner.agent.life.rules import KeepingRules
from kohakuriver.runner.agent.order_spec import SHARED_DATA, TaskSettings
from kohakuriver.runner.api.routes import runner_api
from kohakuriver.runner.api.services import RunnerServices
from kohakuriver.runner.api.streams import StreamHandler
from kohakuriver.runner.api.workloads.endpoints import WorkloadEndpoints, WorkloadServices
from kohakuriver.runner.api.workloads.listeners import Served, bound_listeners, servers
from kohakuriver.runner.api.workloads.peers import WorkloadNetwork
from kohakuriver.runner.docker_parts import DockerParts
from kohakuriver.runner.engines.contract.engine import Engine
from kohakuriver.runner.engines.contract.spec import DOCKER
from kohakuriver.runner.files.file_streams import FileStreams
from kohakuriver.runner.fitness import Fitness
from kohakuriver.runner.forwarding import Forwarding
from kohakuriver.runner.link.enrolling import Enrolment, EnrolmentParts
from kohakuriver.runner.link.host_client import HostClient
from kohakuriver.runner.link.presence import Presence, PresenceParts
from kohakuriver.runner.link.self_description import DescriptionParts, SelfDescription
from kohakuriver.runner.local_temp import LOGS, prepare_local_temp
from kohakuriver.runner.monitor.disk_space import DiskSpaceWatch, Place
from kohakuriver.runner.monitor.monitor import Monitor
from kohakuriver.runner.rights import check_rights
from kohakuriver.runner.service_factory import ServiceFactory
from kohakuriver.runner.settings_of_parts import docker_settings, task_settings
from kohakuriver.runner.state_dir import StateDir
from kohakuriver.runner.terminals.input_streams import InputStreams
from kohakuriver.runner.terminals.streams import TerminalStreams
from kohakuriver.runner.tunnels.client_program import TunnelClient, find_client
from kohakuriver.runner.tunnels.sandbox_tunnels import SandboxTunnels
from kohakuriver.serving import serve_until_signal
from kohakuriver.wire.trust.enrolment import JoinToken
from kohakuriver.wire.trust.identity import Identity

# Each call to storage that hangs keeps a thread; the few that asyncio has by itself would soon be gone, and
# with them what the runner needs to stay in touch.
_THREADS = 64
_ENGINE_CLOSE_SECONDS = 2.5
_log = structlog.get_logger(__name__)


async def run_runner(config: RunnerConfig) -> None:
    """Run the runner until SIGTERM or SIGINT; raises KohakuRiverError when it cannot start or go on."""
    hostname = socket.gethostname()
    if not is_hostname(hostname):
        raise InvalidInput(f"this machine's hostname {hostname!r} cannot be a node's name; change it")
    if point := arm_from(os.environ):
        _log.warning("crash_point_armed", point=point.value, meaning="this runner will kill itself")
    check_rights()
    protect_this_process()
    keep_little()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "runner"))
    settings = task_settings(config)
    chosen = config.tunnel_client_path
    client = await asyncio.to_thread(find_client, config.tunnel_enabled, chosen, settings.shared_dir)
    token = JoinToken.parse(config.join_token) if config.join_token else None
    machine = await asyncio.to_thread(this_machine)
    folder = folder_of_this_machine(hostname, runner_folders(), machine)
    state = StateDir.open(folder.path)
    try:
        mark_folder(folder, machine)
        await asyncio.to_thread(prepare_local_temp, settings.local_temp_dir)
        gateway = config.docker_network_gateway
        with bound_listeners(config.runner_bind_ip, config.runner_port, gateway) as listeners:
            enrolment = EnrolmentParts(
                folder.node,
                Identity.load_or_create(state.path / IDENTITY_FILE),
                state.path / "host.json",
                token,
                config.host_fingerprint,
            )
            await _Runner(config, settings, client, enrolment, state.path).run(listeners)
    finally:
        state.close()


class _Runner:
    """The parts of one runner, built in the order in which they need each other."""

    def __init__(
        self,
        config: RunnerConfig,
        settings: TaskSettings,
        tunnel_client: TunnelClient,
        enrolment: EnrolmentParts,
        state: Path,
    ) -> None:
        self._config = config
        self._settings = settings
        self._enrolment_parts = enrolment
        self._state = state
        self._monitor = Monitor(config.resource_check_interval_seconds, config.numactl_path)
        self._client = HostClient(config.host_url, enrolment.hostname)
        for_docker = docker_settings(config, tunnel_client, enrolment.hostname, state)
        self._tunnels = SandboxTunnels(client=tunnel_client)
        self._docker = DockerParts(for_docker, self._client.registry_credential, self._tunnels)
        self._room = DiskSpaceWatch(self._places)
        self._presence: Presence | None = None
        self._fitness = Fitness(self._docker.prove, self._tell_host_now)
        self._has_shared: Callable[[], bool] = lambda: False
        self._renaming = _renaming(enrolment.hostname, socket.gethostname())

    async def run(self, listeners: list[socket.socket]) -> None:
        inventory = await asyncio.to_thread(self._monitor.inventory)
        book = DurableBook(self._state / "journal")
        client = self._client
        try:
            enrolment = Enrolment(self._enrolment_parts, client)
            description = SelfDescription(
                self._description_parts(),
                self._monitor,
                inventory,
                lambda: enrolment.pin.cluster_id if enrolment.pin else None,
            )
            await description.look_at_marker()
            self._has_shared = lambda: description.facts().shared_storage
            agent = Agent(self._agent_parts(enrolment, description, client), book)
            interval = self._config.heartbeat_interval_seconds
            presence = Presence(
                PresenceParts(
                    client, enrolment, description, agent, interval, self._machine_faults, self._notices
                )
            )
            self._presence = presence
            inside = _Inside.open(agent)
            services = self._services(enrolment, agent, presence, description, inside)
            served = servers(listeners, self._network(), runner_api(services), self._workload_api())
            _log.info(
                "runner_started",
                node=self._enrolment_parts.hostname,
                port=self._config.runner_port,
                host=self._config.host_url,
                fingerprint=self._enrolment_parts.identity.fingerprint,
            )
            jobs = [self._monitor.run(), self._room.run(), agent.run(), presence.run(), self._fitness.run()]
            try:
                await _serve(served, jobs)
            finally:
                await inside.close()
        finally:
            await self._close(client)
            book.close()

    async def _close(self, client: HostClient) -> None:
        try:
            async with asyncio.timeout(_ENGINE_CLOSE_SECONDS):
                await self._docker.close()
        except (TimeoutError, KohakuRiverError) as error:
            _log.warning("engine_not_closed", error=str(error) or "it took too long")
        await client.close()
        _log.info("runner_stopped")

    def _places(self) -> list[Place]:
        """Where this node must be able to write. A folder that is not there is somebody else's fault."""
        shared = self._settings.shared_dir
        places = [
            Place("the runner's state folder", self._state),
            Place("LOCAL_TEMP_DIR", self._settings.local_temp_dir),
            Place("SHARED_DIR", shared, shared / SHARED_DATA, shared / LOGS if self._has_shared() else None),
        ]
        root = self._docker.data_root()
        return [*places, Place("the Docker engine's folder", root)] if root else places

    def _tell_host_now(self) -> None:
        if self._presence is not None:
            self._presence.hurry()

    def _machine_faults(self) -> list[str]:
        return self._room.faults() + self._fitness.faults()

    def _notices(self) -> list[str]:
        parts = (self._docker, self._room, self._tunnels)
        return self._renaming + [notice for part in parts for notice in part.notices()]

    def _agent_parts(
        self, enrolment: Enrolment, description: SelfDescription, client: HostClient
    ) -> AgentParts:
        config = self._config

        async def open_docker() -> Engine:
            """Not before this runner is in a cluster, whose id stands on all that is made."""
            return await self._docker.open(await enrolment.cluster_ids())

        keeping = KeepingRules(config.auto_snapshot_on_stop, config.max_snapshots_per_vps)
        return AgentParts(
            {DOCKER: open_docker},
            self._settings,
            description.facts,
            client.send_reports,
            keeping,
            self._fitness.starts,
        )

    def _services(
        self,
        enrolment: Enrolment,
        agent: Agent,
        presence: Presence,
        description: SelfDescription,
        inside: "_Inside",
    ) -> RunnerServices:
        def shared_dir() -> Path | None:
            return self._settings.shared_dir if description.facts().shared_storage else None

        def faults() -> list[str]:
            return agent.faults() + presence.faults() + self._monitor.faults() + self._machine_faults()

        keep, local_temp_dir = self._config.max_snapshots_per_vps, self._settings.local_temp_dir
        service_factory = ServiceFactory(agent, self._docker, shared_dir, local_temp_dir, keep)
        return RunnerServices(
            node=self._enrolment_parts.hostname,
            keys=_kept_keys(enrolment),
            take_orders=agent.take_orders,
            list_images=self._docker.list_images,
            sync_environment=self._docker.sync_environment,
            remove_environment=self._docker.remove_environment,
            faults=faults,
            local_temp_dir=local_temp_dir,
            vps=service_factory.vps(),
            leftovers=service_factory.leftovers(),
            engine_of=agent.engines.of,
            streams=inside.handlers(),
        )

    def _workload_api(self) -> WorkloadEndpoints:
        return WorkloadEndpoints(WorkloadServices(self._tunnels))

    def _network(self) -> WorkloadNetwork:
        config = self._config
        return WorkloadNetwork.of(config.docker_network_subnet, config.docker_network_gateway)

    def _description_parts(self) -> DescriptionParts:
        config, hostname = self._config, self._enrolment_parts.hostname
        return DescriptionParts(
            hostname=hostname,
            url=f"http://{hostname}:{config.runner_port}",
            heartbeat_interval_seconds=config.heartbeat_interval_seconds,
            shared_dir=self._settings.shared_dir,
            settings=values_that_must_match(config),
        )


@dataclass(frozen=True, slots=True)
class _Inside:
    """What reaches into workloads that run: shells and commands, ports, files."""

    terminals: TerminalStreams
    forwarding: Forwarding
    file_streams: FileStreams
    inputs: InputStreams

    @classmethod
    def open(cls, agent: Agent) -> "_Inside":
        return cls(
            TerminalStreams(agent.engines.of),
            Forwarding(agent.engines.of),
            FileStreams(agent.engines.of),
            InputStreams(agent.input_of),
        )

    def handlers(self) -> dict[str, StreamHandler]:
        return {
            **self.terminals.handlers(),
            **self.file_streams.handlers(),
            **self.inputs.handlers(),
            **self.forwarding.handlers(),
        }

    async def close(self) -> None:
        await self.terminals.close()


async def _serve(served: list[Served], jobs: list[Coroutine[Any, Any, None]]) -> None:
    try:
        await serve_until_signal(served, jobs, _told_of_stopping())
    except* KohakuRiverError as group_error:
        raise _first(group_error) from group_error


@contextmanager
def _told_of_stopping() -> Iterator[None]:
    _log.info("runner_stopping")
    reach(CrashPoint.RUNNER_STOPPING)
    yield


def _first(group: BaseExceptionGroup[KohakuRiverError]) -> KohakuRiverError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, KohakuRiverError) else KohakuRiverError(str(error))


def _renaming(node: str, hostname: str) -> list[str]:
    """What to know of a machine that was renamed since it became a node."""
    if node == hostname:
        return []
    _log.warning("machine_was_renamed", node=node, hostname=hostname)
    return [
        f"this machine is called {hostname} now, and its node keeps the name {node}, under which its work is "
        f"on record; to join as {hostname}, drain and remove node {node}, and remove "
        f"~/.kohakuriver/runner/{node} on the machine"
    ]


def _kept_keys(enrolment: Enrolment) -> Callable[[], Any]:
    return lambda: enrolment.keys
