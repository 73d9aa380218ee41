"""The host's API over a real control room and store, with users of every role."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI

from kohakuriver.dockerapi.tarballs import Tarball
from kohakuriver.files.rooted_fs import RootedFs
from kohakuriver.files.system.kernel_mounts import KernelMounts
from kohakuriver.host.api.app import build_api
from kohakuriver.host.api.events.feed import EventFeed
from kohakuriver.host.api.parts import ApiParts
from kohakuriver.host.api.tasks.output import OutputReader
from kohakuriver.host.auth import Actor, AuthService
from kohakuriver.host.auth.token_uses import TokenUses
from kohakuriver.host.control import ClusterControl
from kohakuriver.host.control.clock import Clock
from kohakuriver.host.environments.environment_settings import EnvironmentContainer, EnvironmentTarballs
from kohakuriver.host.registries.credentials import RegistryCredentials
from kohakuriver.host.retention import OutputFolders, Retention, RetentionParts, RetentionRules
from kohakuriver.host.retention.nodes import NodeParts
from kohakuriver.host.store.store import Store
from kohakuriver.models.enums import Flow, PullPolicy, Role
from kohakuriver.models.errors import KohakuRiverError, NotFound, Unavailable
from kohakuriver.models.output.places import OutputPart, OutputPlace
from kohakuriver.wire.channel import Channel
from kohakuriver.wire.trust.host_proof import answer_question
from kohakuriver.wire.trust.identity import Identity
from support.host.control import Room, control_over, control_room
from support.messages.raw_http import serving

HOST_IDENTITY = Identity.generate()
NAMES = {"vera": Role.VIEWER, "ursula": Role.USER, "otto": Role.OPERATOR, "ada": Role.ADMIN, "ulf": Role.USER}


class StandInLogs:
    """Output as a runner would give it; `away` makes the node unreachable."""

    def __init__(self) -> None:
        self.streams: dict[tuple[int, OutputPart], bytes] = {}
        self.unreachable = False

    async def fetch_log(self, node: str, place: OutputPlace, offset: int, length: int) -> tuple[bytes, int]:
        if self.unreachable:
            raise Unavailable(f"node {node} is unreachable")
        data = self.streams.get((place.task_id, place.part), b"")
        return data[offset : offset + length], len(data)


class StandInShell:
    """Gives what it was told to give (nothing: its end), keeps what was written."""

    def __init__(self, output: list[bytes]) -> None:
        self.output: asyncio.Queue[bytes] = asyncio.Queue()
        for piece in output:
            self.output.put_nowait(piece)
        self.written: list[bytes] = []
        self.sizes: list[tuple[int, int]] = []
        self.closed = asyncio.Event()

    async def read(self) -> tuple[Flow, bytes] | None:
        data = await self.output.get()
        return (Flow.OUTPUT, data) if data else None

    async def write(self, data: bytes) -> None:
        self.written.append(data)

    async def close_input(self) -> None:
        self.written.append(b"")

    async def exit_status(self) -> int:
        return 7

    async def resize(self, rows: int, cols: int) -> None:
        self.sizes.append((rows, cols))

    async def close(self) -> None:
        self.closed.set()


@dataclass
class StandInRunners:
    """Runners as the API asks them: `answers` by (method, path), of which the longest that fits counts."""

    answers: dict[tuple[str, str], bytes | KohakuRiverError] = field(default_factory=dict)
    calls: list[tuple[str, str, str, bytes]] = field(default_factory=list)
    streams: list[tuple[str, str]] = field(default_factory=list)
    channel: Channel | None = None

    async def call(
        self,
        node: str,
        method: str,
        target: str,
        body: bytes = b"",
        seconds: float = 60.0,
        *,
        max_bytes: int = 4 << 20,
    ) -> bytes:
        self.calls.append((node, method, target, body))
        answer = self.answers.get((method, target.split("?", maxsplit=1)[0]))
        if answer is None:
            raise Unavailable(f"node {node} is unreachable")
        if isinstance(answer, KohakuRiverError):
            raise answer
        return answer

    async def open_stream(self, node: str, target: str) -> Channel:
        self.streams.append((node, target))
        if self.channel is None:
            raise Unavailable(f"node {node} is unreachable")
        return self.channel


class StandInFiles:
    """Files of environments: of `base`, those below a folder of the test."""

    def __init__(self) -> None:
        self.root: Path | None = None

    async def perform(self, name: str, work: Callable[[RootedFs], Any]) -> Any:
        if name != "base" or self.root is None:
            raise NotFound(f"there is no environment container {name!r}")
        root = os.open(self.root, os.O_PATH | os.O_DIRECTORY)
        try:
            return work(RootedFs(root, KernelMounts()))
        finally:
            os.close(root)


@dataclass
class StandInEnvironments:
    """One environment, `base`, whose terminal is `shell`."""

    shell: StandInShell = field(default_factory=lambda: StandInShell([]))
    calls: list[tuple[str, ...]] = field(default_factory=list)
    files: StandInFiles = field(default_factory=StandInFiles)

    async def open_terminal(self, name: str, rows: int, cols: int) -> StandInShell:
        if name != "base":
            raise NotFound(f"there is no environment container {name!r}")
        return self.shell

    async def list_containers(self) -> list[EnvironmentContainer]:
        return [
            EnvironmentContainer(
                "0123456789ab",
                "base",
                "kohakuriver-env-base",
                "debian:12",
                "running",
                datetime(2026, 1, 1, tzinfo=UTC),
            )
        ]

    async def list_tarballs(self) -> list[EnvironmentTarballs]:
        return [await self.inspect_tarballs("base")]

    async def inspect_tarballs(self, name: str) -> EnvironmentTarballs:
        return EnvironmentTarballs(name, (await self.create_tar(name),))

    async def create_tar(self, name: str) -> Tarball:
        return Tarball(name, 1_700_000_000, Path(f"/tars/{name}-1700000000.tar"), 5)

    async def delete_tarballs(self, name: str) -> EnvironmentTarballs:
        return await self.inspect_tarballs(name)

    async def create_container(self, image: str, name: str, *, pull: PullPolicy = PullPolicy.MISSING) -> None:
        self.calls.append(("create", image, name, pull.value))

    async def start_container(self, name: str) -> None:
        self.calls.append(("start", name))

    async def stop_container(self, name: str) -> None:
        self.calls.append(("stop", name))

    async def delete_container(self, name: str, *, force: bool = False) -> None:
        self.calls.append(("delete", name, *(["by force"] if force else [])))

    async def migrate_container(self, name: str) -> None:
        self.calls.append(("migrate", name))


@dataclass(frozen=True)
class StandInGateway:
    """A gateway that listens at this port."""

    port: int = 8002
    public_key: str = "ssh-ed25519 AAAA"


@dataclass
class ApiHarness:
    """A running API. `call` speaks to it without a socket, `served` with one."""

    room: Room
    app: FastAPI
    auth: AuthService
    tokens: dict[str, str]
    logs: StandInLogs
    environments: StandInEnvironments
    runners: StandInRunners
    shared: Path

    async def call(self, who: str | None, method: str, path: str, **options: Any) -> httpx2.Response:
        headers = {**self.credential(who), **options.pop("headers", {})}
        transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False, client=("192.0.2.7", 5))
        async with httpx2.AsyncClient(transport=transport, base_url="http://host:8000") as client:
            return await client.request(method, path, headers=headers, **options)

    def open_gateway(self) -> None:
        self.app.state.parts = replace(self.app.state.parts, gateway=StandInGateway())

    def credential(self, who: str | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[who]}"} if who else {}

    async def submit(self, who: str = "otto", **fields: Any) -> str:
        answer = await self.call(who, "POST", "/api/submit", json={"command": "true", **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task_ids"][0])

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """Serve on a free port; yields `127.0.0.1:<port>`."""
        async with serving(self.app) as (address, _):
            yield address


@contextlib.asynccontextmanager
async def api_harness(
    folder: Path,
    *,
    auth_enabled: bool = True,
    identity: Identity | None = None,
    check_seconds: float = 3600,
) -> AsyncIterator[ApiHarness]:
    """Open everything in the folder, which is also the shared storage that output is read from.

    `check_seconds`: how often silent nodes are looked for; no node here sends heartbeats by itself.
    """
    async with control_room(folder, check_seconds, identity) as room:
        for name, role in NAMES.items():
            await room.add_user(name, role)
        auth = auth_over(room.control, room.store, enabled=auth_enabled)
        tokens = {}
        if auth_enabled:
            for name, role in NAMES.items():
                tokens[name] = (await auth.create_token(Actor(name, role), "test")).text
        logs, environments, runners = StandInLogs(), StandInEnvironments(), StandInRunners()
        output = OutputReader(folder, logs)
        feed = EventFeed(room.control.tasks, room.control.nodes.openness)
        room.control.on_news = feed.wake
        telling = asyncio.create_task(feed.run())
        retention = retention_of(room.store, folder)
        parts: Any = ApiParts(
            control=room.control,
            auth=auth,
            environments=environments,  # type: ignore[arg-type]
            output=output,
            events=feed,
            faults=list,
            runners=runners,
            retention=retention,
            registries=await RegistryCredentials.open(room.store, Identity.generate()),
            prove=partial(answer_question, HOST_IDENTITY),
        )
        try:
            yield ApiHarness(room, build_api(parts), auth, tokens, logs, environments, runners, folder)
        finally:
            feed.close()
            telling.cancel()
            output.close()
            retention.close()


def auth_over(control: ClusterControl, store: Store, *, enabled: bool = True) -> AuthService:
    """Who asks, joined with the accounts as in a host."""
    auth = AuthService(control.accounts, TokenUses(store), enabled=enabled)
    control.accounts.on_loss = auth.rights.look_again
    return auth


async def auth_after_restart(store: Store) -> AuthService:
    """Who asks, as a host that starts now would know it."""
    return auth_over(await control_over(store), store)


def retention_of(
    store: Store,
    shared: Path | None,
    clock: Clock | None = None,
    *,
    nodes: NodeParts | None = None,
    **days: int,
) -> Retention:
    """Over a store and a folder of shared storage (None: it is unreachable); `days` by kind."""

    def outputs() -> OutputFolders | None:
        return None if shared is None else OutputFolders(shared)

    return Retention(RetentionParts(store, RetentionRules(**days), outputs, clock or Clock(), nodes=nodes))


def play(
    folder: Path, scenario: Callable[[ApiHarness], Coroutine[Any, Any, None]], *, auth_enabled: bool = True
) -> None:
    """Run a scenario with a harness of its own."""

    async def run() -> None:
        async with api_harness(folder, auth_enabled=auth_enabled) as harness:
            await scenario(harness)

    asyncio.run(run())
