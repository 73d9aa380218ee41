"""Composition root of the host: the one file that builds its parts and joins them.

Nothing is bound, created or contacted before the configuration has been checked. Order of the start: socket,
store, identity, control, API; the end goes the other way round, and workloads are left alone.
"""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from kohakuriver.config import HostConfig, values_that_must_match
from kohakuriver.crash_points import CrashPoint, arm_from, reach
from kohakuriver.descriptors import allow_many_connections
from kohakuriver.heap import keep_little, spare_what_lives_long
from kohakuriver.host.api.app import build_api
from kohakuriver.host.api.events.feed import EventFeed
from kohakuriver.host.api.http.open_requests import OpenRequests
from kohakuriver.host.api.http.own_names import OwnNames
from kohakuriver.host.api.parts import ApiParts
from kohakuriver.host.api.tasks.output import OutputReader
from kohakuriver.host.audit import AuditLog
from kohakuriver.host.auth import AuthService, warn_if_open
from kohakuriver.host.auth.admin_file import AdminFile, provide_admin_token
from kohakuriver.host.auth.token_uses import TokenUses
from kohakuriver.host.control import ControlFigures, RunnerControl
from kohakuriver.host.control.cluster_control import ClusterControl, ControlSettings, open_control
from kohakuriver.host.control.tasks.waiting_work import WaitingLimits
from kohakuriver.host.dispatch.dispatcher import Dispatcher
from kohakuriver.host.dispatch.runners import Runners
from kohakuriver.host.environments.bootstrap import DefaultEnvironment
from kohakuriver.host.environments.engine_link import EngineLink
from kohakuriver.host.environments.environment_settings import EnvironmentSettings
from kohakuriver.host.environments.service import EnvironmentService
from kohakuriver.host.gateway.late_gateway import LateGateway
from kohakuriver.host.gateway.vps_access import VpsAccess, vps_access_of
from kohakuriver.host.registries.credentials import RegistryCredentials
from kohakuriver.host.retention_parts import RetentionNeighbours, retention_of
from kohakuriver.host.shared_storage import SharedStorage, prepare_shared_storage
from kohakuriver.host.ssh_key_pairs import load_key_pair, new_key_pair
from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.host.store.sqlite.state_lock import state_held
from kohakuriver.host.store.store import Store
from kohakuriver.host.store.writes import meta_value
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.spec.mounts import parse_mount
from kohakuriver.oom_score import protect_this_process
from kohakuriver.serving import ApiServer, bind_listener, serve_until_signal
from kohakuriver.wire.trust.host_proof import answer_question
from kohakuriver.wire.trust.identity import Identity

log = structlog.get_logger()

SHUTDOWN_SECONDS = 5
_GRACE_SECONDS = 4.0
"""How long requests that change something may take while the host stops; less than the server waits."""

ADMIN_TOKEN_FILE = Path(".kohakuriver") / "admin_token.json"


async def run_host(config: HostConfig) -> None:
    """Run the host until SIGTERM or SIGINT; raises KohakuRiverError when it cannot start."""
    if config.db_url:
        raise InvalidInput("DB_URL: this version keeps its state only in SQLite; leave it empty, set DB_FILE")
    if point := arm_from(os.environ):
        log.warning("crash_point_armed", point=point.value, meaning="this host will kill itself")
    protect_this_process()
    keep_little()
    allow_many_connections()
    listen = partial(bind_listener, config.host_bind_ip)
    with (
        closing(listen(config.host_port, "HOST_PORT")) as api_listener,
        # Before the second port: of a host that runs already, both are taken, and this is the reason.
        state_held(Path(config.db_file)),
        closing(listen(config.host_ssh_proxy_port, "HOST_SSH_PROXY_PORT")) as ssh_listener,
        closing(open_store(Path(config.db_file))) as store,
    ):
        await _serve(config, store, api_listener, ssh_listener)


async def _serve(
    config: HostConfig, store: Store, api_listener: socket.socket, ssh_listener: socket.socket
) -> None:
    cluster_id = await store.write(partial(meta_value, key="cluster_id", default=secrets.token_hex(8)))
    identity = Identity.load_or_create(Path(config.db_file).with_name("host_identity.key"))
    storage = await asyncio.to_thread(prepare_shared_storage, Path(config.shared_dir), cluster_id)
    control = await open_control(store, cluster_id, identity, _control_settings(config))
    dispatcher = _dispatcher_of(control.runners)
    auth = await _open_auth(control, TokenUses(store), config, identity)
    engine, runners, audit = EngineLink(), Runners(control.runners), AuditLog()
    registries = await RegistryCredentials.open(store, identity)
    environments = EnvironmentService(_environment_settings(config), engine, registries)
    default = DefaultEnvironment(environments, engine, *_default_names(config))
    gateway = await _gateway_of(config, store, vps_access_of(control, auth, runners), audit)
    parts = ApiParts(
        control=control,
        auth=auth,
        environments=environments,
        output=OutputReader(None if storage.fault else Path(config.shared_dir), dispatcher),
        events=_event_feed(control),
        faults=partial(_faults, control.figures, default, storage),
        runners=runners,
        registries=registries,
        gateway=gateway,
        prove=partial(answer_question, identity),
        audit=audit,
        store_size=store.size,
        retention=retention_of(config, RetentionNeighbours(store, control, environments, runners)),
        **_configured(config),
    )
    _tell_of_start(config, identity, parts)
    jobs = [control.run(), dispatcher.run(), parts.events.run(), parts.lag.run(), gateway.run(ssh_listener)]
    jobs += [auth.uses.run(), parts.retention.run()]
    if not storage.fault:
        jobs.append(_prepare_environments(environments, default))
    async with _closed_afterwards(parts.output, parts.retention, environments, runners, engine):
        await _serve_api(parts, api_listener, jobs)


@contextlib.asynccontextmanager
async def _closed_afterwards(*parts: Any) -> AsyncIterator[None]:
    """Close each of them at the end, the first one first, also when one of them cannot be closed."""
    async with contextlib.AsyncExitStack() as closing:
        for part in reversed(parts):
            if asyncio.iscoroutinefunction(part.close):
                closing.push_async_callback(part.close)
            else:
                closing.callback(part.close)
        yield


def _dispatcher_of(runners: RunnerControl) -> Dispatcher:
    dispatcher = Dispatcher(runners)
    runners.wake_dispatch = dispatcher.wake
    runners.on_registered = dispatcher.call
    return dispatcher


async def _gateway_of(config: HostConfig, store: Store, access: VpsAccess, audit: AuditLog) -> LateGateway:
    """The gateway is known by its key, so it goes where the state goes, backups included."""
    kept = partial(meta_value, key="ssh_gateway_key", default=new_key_pair("").private)
    key = load_key_pair(await store.write(kept))
    return LateGateway(config.host_ssh_proxy_port, key, access, audit, takes_earlier=config.ssh_proxy_v1)


async def _open_auth(
    control: ClusterControl, uses: TokenUses, config: HostConfig, identity: Identity
) -> AuthService:
    """Who asks, and the administrator's file for the command line on this machine."""
    auth = AuthService(control.accounts, uses, enabled=config.auth_enabled)
    control.accounts.on_loss = auth.rights.look_again
    warn_if_open(config.auth_enabled, config.host_bind_ip)
    admin_file = AdminFile(_own_url(config), identity.fingerprint)
    await provide_admin_token(auth, Path.home() / ADMIN_TOKEN_FILE, admin_file)
    return auth


def _tell_of_start(config: HostConfig, identity: Identity, parts: ApiParts) -> None:
    for part, sentence in parts.faults():
        log.warning("started_with_fault", part=part, fault=sentence)
    log.info(
        "host_started",
        address=config.host_bind_ip,
        port=config.host_port,
        cluster_id=parts.control.cluster_id,
        fingerprint=identity.fingerprint,
    )


def _faults(
    figures: ControlFigures, default: DefaultEnvironment, storage: SharedStorage
) -> list[tuple[str, str]]:
    found = figures.faults() + [("environments", fault) for fault in default.faults()]
    return found + ([("shared storage", storage.fault)] if storage.fault else [])


def _event_feed(control: ClusterControl) -> EventFeed:
    feed = EventFeed(control.tasks, control.nodes.openness)
    control.on_news = feed.wake
    return feed


async def _prepare_environments(environments: EnvironmentService, default: DefaultEnvironment) -> None:
    await environments.remove_stale_partials()
    await default.keep_trying()


async def _serve_api(parts: ApiParts, listener: socket.socket, jobs: list[Coroutine[Any, Any, None]]) -> None:
    api = build_api(parts)
    spare_what_lives_long()
    ending = _answer_what_waits(parts, api.open_requests)
    await serve_until_signal([(ApiServer(api, SHUTDOWN_SECONDS), listener)], jobs, ending)
    parts.audit.tell_left_out()
    log.info("host_stopped")
    reach(CrashPoint.HOST_STOPPED)


@contextmanager
def _answer_what_waits(parts: ApiParts, requests: OpenRequests) -> Iterator[None]:
    """End the requests that wait for news at once, and all others after a time of grace."""
    log.info("host_stopping")
    reach(CrashPoint.HOST_STOPPING)
    parts.events.close()
    parts.output.tails.close()
    requests.end_waiting()
    late = asyncio.get_running_loop().call_later(_GRACE_SECONDS, requests.end_all)
    try:
        yield
    finally:
        late.cancel()


def _default_names(config: HostConfig) -> tuple[str, str]:
    return config.default_container_name, config.initial_base_image


def _configured(config: HostConfig) -> dict[str, Any]:
    """What the API has of the settings."""
    return {
        "reachable_at": (config.host_reachable_address, config.host_port),
        "own_names": OwnNames((config.host_bind_ip, config.host_reachable_address)),
        "default_environment": config.default_container_name,
        "session_expire_hours": config.session_expire_hours,
    }


def _own_url(config: HostConfig) -> str:
    """How the command line on this machine reaches the host."""
    everywhere = config.host_bind_ip in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    address = "127.0.0.1" if everywhere else config.host_bind_ip
    return f"http://{f'[{address}]' if ':' in address else address}:{config.host_port}"


def _control_settings(config: HostConfig) -> ControlSettings:
    return ControlSettings(
        shared_dir=config.shared_dir,
        default_environment=config.default_container_name,
        heartbeat_timeout_factor=config.heartbeat_timeout_factor,
        heartbeat_interval_seconds=config.heartbeat_interval_seconds,
        check_interval_seconds=config.cleanup_check_interval_seconds,
        waiting_limits=WaitingLimits(config.max_waiting_tasks_per_user, config.max_waiting_mib_per_user),
        must_match=values_that_must_match(config),
    )


def _environment_settings(config: HostConfig) -> EnvironmentSettings:
    shared = Path(config.shared_dir)
    return EnvironmentSettings(
        tar_dir=Path(config.container_dir) if config.container_dir else shared / "kohakuriver-containers",
        shared_data_dir=shared / "shared_data",
        additional_mounts=tuple(parse_mount(text) for text in config.additional_mounts),
        cpu_limit=config.env_container_cpu_limit,
        memory_limit=config.env_container_mem_limit,
        privileged=config.tasks_privileged,
        working_dir=config.default_working_dir,
    )
