"""A host and a runner on real sockets, with somebody between them who records all and may change it.

The host's side is its interface, control room, dispatcher and calls; the runner's is its API and its client
of the host, over stand-ins that keep what reaches them. Either side can be ended and begun anew.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from kohakuriver.files.requests import FileRequest
from kohakuriver.files.rooted_fs import RootedFs
from kohakuriver.files.system.kernel_mounts import KernelMounts
from kohakuriver.files.tree_watch import News
from kohakuriver.host.dispatch.dispatcher import Dispatcher
from kohakuriver.host.dispatch.runners import Runners
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.api.routes import runner_api
from kohakuriver.runner.api.services import RunnerServices
from kohakuriver.runner.engines.contract.files import WorkloadFiles
from kohakuriver.runner.engines.contract.vps import Snapshot
from kohakuriver.runner.link.host_client import HostClient
from kohakuriver.serving import ApiServer, bind_listener
from kohakuriver.wire.messages import (
    SESSIONS,
    EnrolRequest,
    Heartbeat,
    Order,
    OrderAnswer,
    Registration,
    TaskReport,
)
from kohakuriver.wire.trust.identity import Identity, Side
from support.host.api import ApiHarness, api_harness
from support.host.control import CLUSTER_ID
from support.runner.machine_engine import Death, Machine, MachineEngine

_OF_A_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date"})
DEADLINE_SECONDS = 30.0
_NOT_ASKED = AssertionError("no test of the wire asks for this")


@dataclass(frozen=True)
class Spoken:
    """One exchange as it went over the wire."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    status: int = 0
    answer_headers: tuple[tuple[str, str], ...] = ()
    answer: bytes = b""

    def everything(self) -> bytes:
        lines = [f"{name}: {value}" for name, value in self.headers + self.answer_headers]
        return "\n".join([self.method, self.path, *lines]).encode() + self.body + self.answer


class Tap:
    """Between one side and the `target` (`address:port`) that it calls. `bend` changes what was answered."""

    def __init__(self) -> None:
        self.target = ""
        self.spoken: list[Spoken] = []
        self.bend: Callable[[Spoken], web.StreamResponse | None] = lambda _spoken: None
        self._session: aiohttp.ClientSession | None = None
        self.port = 0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Tap"]:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, auto_decompress=False)
        await runner.setup()
        listener = bind_listener("127.0.0.1", 0, "port")
        self.port = listener.getsockname()[1]
        await web.SockSite(runner, listener).start()
        async with aiohttp.ClientSession(auto_decompress=False, trust_env=False) as self._session:
            try:
                yield self
            finally:
                await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = Spoken(request.method, request.raw_path, tuple(request.headers.items()), await request.read())
        spoken = await self.play(call)
        self.spoken.append(spoken)
        bent = self.bend(spoken)
        if bent is not None:
            return bent
        return web.Response(
            status=spoken.status, headers=dict(spoken.answer_headers), body=spoken.answer or None
        )

    async def play(self, call: Spoken) -> Spoken:
        """Send it (again), byte for byte as it came."""
        assert self._session is not None
        headers = [pair for pair in call.headers if pair[0].lower() not in _OF_A_HOP]
        url = URL(f"http://{self.target}{call.path}", encoded=True)
        async with self._session.request(
            call.method, url, data=call.body or None, headers=headers, allow_redirects=False
        ) as answer:
            body = await answer.read()
            kept = [pair for pair in answer.headers.items() if pair[0].lower() not in _OF_A_HOP]
            return Spoken(call.method, call.path, call.headers, call.body, answer.status, tuple(kept), body)


@dataclass
class StandInService:
    """Snapshots of any VPS, by their times."""

    snapshots: list[int] = field(default_factory=lambda: [100, 200])

    async def list(self, _task_id: int) -> list[Snapshot]:
        return [Snapshot(at, "kept", 1) for at in self.snapshots]

    async def delete(self, _task_id: int, at: int) -> None:
        self.snapshots.remove(at)

    async def delete_all(self, _task_id: int) -> int:
        gone, self.snapshots = len(self.snapshots), []
        return gone


class FolderFiles(WorkloadFiles):
    """Files of any workload: those below one folder, only by requests."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def perform(self, task_id: TaskId, request: FileRequest) -> Any:
        root = os.open(self.root, os.O_PATH | os.O_DIRECTORY)
        try:
            return await asyncio.to_thread(request.run, RootedFs(root, KernelMounts()))
        finally:
            os.close(root)

    def watch(self, task_id: TaskId, paths: Sequence[bytes]) -> AsyncGenerator[Sequence[News], None]:
        raise _NOT_ASKED

    def read_archive(self, task_id: TaskId, path: str) -> AsyncGenerator[bytes, None]:
        raise _NOT_ASKED

    async def write_archive(self, task_id: TaskId, path: str, content: AsyncIterator[bytes]) -> None:
        raise _NOT_ASKED


class FolderEngine(MachineEngine):
    """An engine whose workloads have files."""

    def __init__(self, root: Path) -> None:
        super().__init__(Machine(), Death())
        self._files = FolderFiles(root)

    @property
    def files(self) -> FolderFiles:
        return self._files


@dataclass
class TappedRunner:
    """The runner of node n1. What reached it is in `orders` and `service`, and in the files below `root`."""

    folder: Path
    identity: Identity = field(default_factory=Identity.generate)
    orders: list[Order] = field(default_factory=list)
    service: StandInService = field(default_factory=StandInService)
    host_key: str = ""
    session: str = ""
    beats: int = 0
    client: HostClient | None = None

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @contextlib.asynccontextmanager
    async def serving(self, tap: Tap, host_tap: Tap) -> AsyncIterator["TappedRunner"]:
        """One life of its process: an API behind the tap, and a client that speaks through the other."""
        keys = self.identity.link_keys(self.host_key, Side.NODE)
        self.root.mkdir(exist_ok=True)
        engine = FolderEngine(self.root)
        services = RunnerServices(
            node="n1",
            keys=lambda: keys,
            take_orders=self._take,
            list_images=self._nothing,
            sync_environment=self._nothing,
            remove_environment=self._nothing,
            faults=list,
            local_temp_dir=self.folder,
            vps=self.service,  # type: ignore[arg-type]
            engine_of=lambda _: engine,
            leftovers=None,  # type: ignore[arg-type]
        )
        listener = bind_listener("127.0.0.1", 0, "RUNNER_PORT")
        server = ApiServer(runner_api(services), 1)
        life = asyncio.create_task(server.serve(sockets=[listener]))
        tap.target = f"127.0.0.1:{listener.getsockname()[1]}"
        self.client = HostClient(f"http://127.0.0.1:{host_tap.port}", "n1")
        self.client.trust(keys)
        try:
            yield self
        finally:
            await self.client.close()
            server.should_exit = True
            await life

    async def _take(self, orders: list[Order]) -> list[OrderAnswer]:
        self.orders += orders
        return [OrderAnswer(order_id=order.order_id, accepted=True) for order in orders]

    async def _nothing(self, *_: object) -> Any:
        return None

    async def register(self, port: int) -> None:
        """As presence does it."""
        assert self.client is not None
        for _ in range(2):
            registration = Registration(
                hostname="n1",
                url=f"http://n1:{port}",
                total_cores=4,
                total_ram_bytes=1 << 33,
                shared_cluster_id=CLUSTER_ID,
                boot_id="boot-1",
                capabilities=[SESSIONS],
                session=self.session,
            )
            answer = await self.client.register(registration)
            self.session = answer.session
        assert answer.known

    async def beat(self) -> bool:
        assert self.client is not None
        self.beats += 1
        beat = Heartbeat(revision=self.beats, boot_id="boot-1", session=self.session)
        return (await self.client.heartbeat(beat)).known

    async def report(self, **fields: Any) -> int:
        assert self.client is not None
        return await self.client.send_reports([TaskReport(**fields)])


@dataclass
class TappedHost:
    """One life of a host's process."""

    harness: ApiHarness
    dispatcher: Dispatcher
    runners: Runners


@contextlib.asynccontextmanager
async def host_serving(folder: Path, identity: Identity, tap: Tap) -> AsyncIterator[TappedHost]:
    async with api_harness(folder, identity=identity) as harness, harness.served() as address:
        tap.target = address
        dispatcher, runners = Dispatcher(harness.room.control.runners), Runners(harness.room.control.runners)
        harness.room.control.runners.wake_dispatch = dispatcher.wake
        sending = asyncio.create_task(dispatcher.run())
        try:
            yield TappedHost(harness, dispatcher, runners)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await runners.close()


@dataclass
class Wiretap:
    """`at_runner` stands before the runner's API, `at_host` before the host's."""

    folder: Path
    at_runner: Tap = field(default_factory=Tap)
    at_host: Tap = field(default_factory=Tap)
    host_identity: Identity = field(default_factory=Identity.generate)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[TappedRunner]:
        async with self.at_runner.open(), self.at_host.open():
            yield TappedRunner(self.folder, host_key=self.host_identity.public_key)

    @contextlib.asynccontextmanager
    async def host(self) -> AsyncIterator[TappedHost]:
        async with host_serving(self.folder, self.host_identity, self.at_host) as host:
            yield host

    async def join(self, host: TappedHost, runner: TappedRunner) -> None:
        control = host.harness.room.control
        await control.runners.enrol(EnrolRequest(hostname="n1", public_key=runner.identity.public_key))
        await control.nodes.approve("n1", None, "ada")
        await runner.register(self.at_runner.port)
        assert await runner.beat()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)
