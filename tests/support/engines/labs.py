"""Engines under test behind one face, so that the same suite runs over the fake and the real one."""

import asyncio
import itertools
import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.enums import SshKeyMode
from kohakuriver.models.errors import Conflict, NotFound
from kohakuriver.models.ids import EPOCH_MS, TaskId
from kohakuriver.models.names import LABEL_NODE
from kohakuriver.models.vps import FROM_NEWEST
from kohakuriver.runner.engines.contract.abilities import EngineAbility
from kohakuriver.runner.engines.contract.engine import Engine
from kohakuriver.runner.engines.contract.processes import ExecRequest
from kohakuriver.runner.engines.contract.spec import (
    ContainerBody,
    ImageChoice,
    ReadyImage,
    UserIds,
    WorkloadSpec,
)
from kohakuriver.runner.engines.contract.vps import VpsSetup
from kohakuriver.runner.engines.docker.docker_engine import DockerEngine
from kohakuriver.runner.engines.docker.settings import DockerEngineSettings
from kohakuriver.runner.engines.fake.fake_engine import FakeEngine
from kohakuriver.runner.engines.fake.machine import FakeMachine
from kohakuriver.runner.tunnels.client_program import SWITCHED_OFF, TunnelClient
from kohakuriver.runner.tunnels.sandbox_tunnels import SandboxTunnels
from support.cluster.cluster import remove_filter_tables
from support.engines.docker_images import bare_image, busybox_image
from support.machine.debian_tree import ssh_image

_SEQUENCE = itertools.count()
# The second is the slower one: what it says comes after the end of the first. Both listen once it is ready.
_PAIR = """
trap 'echo first USR1' USR1
trap 'echo first TERM; exit 143' TERM
(
    trap 'echo second USR1' USR1
    trap 'sleep 0.3; echo second TERM; exit 0' TERM
    echo ready
    while :; do sleep 0.05; done
) &
while :; do sleep 0.05; done
"""
_PROGRAM = """
(
    trap 'printf %s "$1" > "$0"; exit 0' TERM
    : > /begun
    while :; do sleep 0.05; done
) > /dev/null 2>&1 &
while [ ! -e /begun ]; do sleep 0.05; done
"""
_OOM = "a=0123456789abcdef; while :; do a=$a$a; done"


def ignore(_sentence: str) -> None:
    """For callers that do not follow progress."""


def fresh_task_id() -> TaskId:
    """An id that no other test uses, on this engine or by another worker."""
    tick = int(time.time() * 1000) - EPOCH_MS
    return TaskId((tick << 22 | uuid.uuid4().int % (1 << 10) << 12) + next(_SEQUENCE) % (1 << 12))


class Lab(ABC):
    """One node's engine: `engine` is open, `restart` gives a second one as after a crash of the runner."""

    engine: Engine
    folder: Path

    def __init__(self) -> None:
        self.vps_ids: set[TaskId] = set()

    @abstractmethod
    def argv(self, *words: str) -> tuple[str, ...]:
        """Translate one of the fake's commands into one that this engine can run."""

    @abstractmethod
    async def restart(self) -> None: ...

    @abstractmethod
    async def put(self, spec: WorkloadSpec, path: str, text: str) -> None:
        """Write a file in a VPS that runs."""

    @abstractmethod
    async def begin_program(self, spec: WorkloadSpec, path: str, text: str) -> None:
        """Have a program run in a VPS that writes a file once it gets SIGTERM, and then ends."""

    @abstractmethod
    async def got(self, spec: WorkloadSpec, path: str) -> str | None:
        """What it holds; None: it is not there."""

    @abstractmethod
    def greeting(self, spec: WorkloadSpec, port: int, text: str) -> AbstractAsyncContextManager[None]:
        """Have a VPS answer who connects to a port of it with a line of text."""

    def vps(self, task_id: TaskId | None = None, attempt: int = 1, **setup: Any) -> WorkloadSpec:
        """A VPS without SSH, unless the set-up says otherwise; `image` may be among its fields."""
        image = ImageChoice(registry_image=setup.pop("image", "busybox"))
        fields: dict[str, Any] = {
            "hostname": "box",
            "ssh_key_mode": SshKeyMode.DISABLED,
            "authorized_keys": (),
            "host_key": "",
            "address": None,
            "restore": FROM_NEWEST,
        }
        vps_setup = VpsSetup(**fields | setup)
        task_id = task_id or fresh_task_id()
        self.vps_ids.add(task_id)
        return self.spec("session", task_id=task_id, attempt=attempt, image=image, session=vps_setup)

    async def begin_vps(self, spec: WorkloadSpec) -> str:
        """Make it, start it and make it ready; return its address."""
        assert spec.session is not None
        await self.engine.create(spec, ignore)
        await self.engine.start(spec.task_id, spec.attempt)
        return await self.engine.vps.set_up(spec.task_id, spec.attempt, spec.session)

    def spec(self, *argv: str, **changes: Any) -> WorkloadSpec:
        task_id = changes.pop("task_id", None) or fresh_task_id()
        fields: dict[str, Any] = {
            "task_id": task_id,
            "attempt": 1,
            "argv": argv,
            "env": (),
            "cores": 0,
            "memory_bytes": 64 << 20,
            "binding": None,
            "gpus": (),
            "working_dir": "/",
            "user": UserIds(0, 0),
            "mounts": (),
            "stdout_path": self.folder / "logs" / str(task_id) / "stdout.log",
            "stderr_path": self.folder / "logs" / str(task_id) / "stderr.log",
        }
        body = {name: changes.pop(name) for name in ContainerBody.__struct_fields__ if name in changes}
        body.setdefault("image", ImageChoice(registry_image="busybox"))
        return WorkloadSpec(**fields | changes, body=ContainerBody(**body))


class FakeLab(Lab):
    engine: FakeEngine

    def __init__(self, folder: Path, lacking: Mapping[EngineAbility, str] | None = None) -> None:
        super().__init__()
        self.folder = folder
        self.machine = FakeMachine()
        self.engine = FakeEngine(self.machine, lacking=lacking)

    def argv(self, *words: str) -> tuple[str, ...]:
        return words

    async def restart(self) -> None:
        self.engine = FakeEngine(self.machine, lacking=self.engine.abilities.lacking)

    async def put(self, spec: WorkloadSpec, path: str, text: str) -> None:
        self.machine.workloads[spec.task_id].disk[path] = text

    async def begin_program(self, spec: WorkloadSpec, path: str, text: str) -> None:
        self.machine.workloads[spec.task_id].programs[path] = text

    async def got(self, spec: WorkloadSpec, path: str) -> str | None:
        return self.machine.workloads[spec.task_id].disk.get(path)

    @asynccontextmanager
    async def greeting(self, spec: WorkloadSpec, port: int, text: str) -> AsyncIterator[None]:
        def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(f"{text}\n".encode())
            writer.close()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            self.machine.listeners[spec.task_id, port] = server.sockets[0].getsockname()
            yield


class TestImages:
    """Provider that knows the test images by the names that specs use."""

    __test__ = False

    def __init__(self, api: DockerApi) -> None:
        self._api = api

    async def ensure(self, image: ImageChoice, on_progress: Callable[[str], None]) -> ReadyImage:
        return ReadyImage(await self._name_of(image), f"sha256:{image.registry_image}")

    async def _name_of(self, image: ImageChoice) -> str:
        if image.registry_image == "bare":
            return await bare_image(self._api)
        if image.registry_image == "busybox":
            return await busybox_image(self._api)
        if image.registry_image == "debian-ssh":
            return await ssh_image(self._api)
        return str(image.registry_image)


class DockerLab(Lab):
    """An engine on a network and a node name of its own."""

    engine: DockerEngine

    def __init__(
        self, api: DockerApi, folder: Path, pool_size: int, settings: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.api = api
        self.folder = folder
        number = uuid.uuid4().int % 4000
        self.node = f"kr-test-{uuid.uuid4().hex[:8]}"
        base = f"10.{231 + number // 1000}.{number % 1000 // 4}"
        chosen: dict[str, Any] = {
            "network_subnet": f"{base}.0/24",
            "network_gateway": f"{base}.1",
            "cluster_ids": (f"{self.node}-cluster",),
            **(settings or {}),
        }
        self.settings = DockerEngineSettings(
            node_name=self.node,
            network_name=self.node,
            state_dir=folder / "state",
            pool_size=pool_size,
            **chosen,
        )
        self.settings.state_dir.mkdir(parents=True, exist_ok=True)
        why_none = "" if self.settings.tunnels_to else SWITCHED_OFF
        self.tunnels = SandboxTunnels(client=TunnelClient(self.settings.tunnel_client, why_none))
        self.engine = self.new_engine()

    def new_engine(self, **changes: Any) -> DockerEngine:
        settings = DockerEngineSettings(**{**_fields(self.settings), **changes})
        return DockerEngine(self.api, settings, TestImages(self.api), self.tunnels)

    def argv(self, *words: str) -> tuple[str, ...]:
        text = "".join(words[1:2])
        return {
            "true": ("/bin/true",),
            "sleep": ("/bin/sleep", text),
            "exit": ("/bin/sh", "-c", f"exit {text}"),
            "cat": ("/bin/cat",),
            "print": ("/bin/printf", "%s", text),
            "complain": ("/bin/sh", "-c", 'printf %s "$0" >&2', text),
            "oom": ("/bin/sh", "-c", _OOM),
            "outlive": ("/bin/sh", "-c", f'sh -c "$0"; exit {text}', _OOM),
            "stubborn": ("/bin/sh", "-c", f'trap "" TERM; echo deaf; sleep {text}'),
            "pair": ("/bin/sh", "-c", _PAIR),
            "suicide": ("/bin/sh", "-c", "kill -9 $$"),
            "missing": ("/bin/missing",),
        }[words[0]]

    async def restart(self) -> None:
        """As after kill -9: nothing of the first object is told to anybody."""
        await abandon(self.engine)
        self.engine = self.new_engine()
        await self.engine.open()

    async def put(self, spec: WorkloadSpec, path: str, text: str) -> None:
        status, said = await self.run(
            spec, "sh", "-c", 'mkdir -p "${0%/*}"; printf %s "$1" > "$0"', path, text
        )
        assert status == 0, said

    async def begin_program(self, spec: WorkloadSpec, path: str, text: str) -> None:
        status, said = await self.run(spec, "sh", "-c", _PROGRAM, path, text)
        assert status == 0, said

    async def got(self, spec: WorkloadSpec, path: str) -> str | None:
        status, said = await self.run(spec, "cat", path)
        return said if status == 0 else None

    @asynccontextmanager
    async def greeting(self, spec: WorkloadSpec, port: int, text: str) -> AsyncIterator[None]:
        argv = ("/.kohakuriver/busybox", "nc", "-l", "-p", str(port), "-e", "/bin/echo", text)
        listening = await self.engine.processes.open(spec.task_id, ExecRequest(argv))
        try:
            yield
        finally:
            await listening.close()

    async def run(self, spec: WorkloadSpec, *argv: str) -> tuple[int, str]:
        """Run an applet of the VPS's busybox in it; return its exit status and what it said."""
        process = await self.engine.processes.open(
            spec.task_id, ExecRequest(("/.kohakuriver/busybox", *argv))
        )
        said = b""
        try:
            while (piece := await process.read()) is not None:
                said += piece[1]
            return await process.exit_status(), said.decode()
        finally:
            await process.close()

    async def containers(self, *labels: str) -> list[dict[str, Any]]:
        filters = json.dumps({"label": [f"{LABEL_NODE}={self.node}", *labels]})
        listed: list[dict[str, Any]] = await self.api.json(
            "GET", "containers/json", params={"all": "1", "filters": filters}
        )
        return listed

    async def first_pid(self, task_id: TaskId) -> int:
        """The number of a task's first process on this machine."""
        facts = await self.api.json("GET", f"containers/kohakuriver-task-{task_id}/json")
        return int(facts["State"]["Pid"])

    async def said_by(self, spec: WorkloadSpec) -> list[str]:
        """Run a workload to its end and remove it; returns the lines of its output, then of its errors."""
        await self.engine.create(spec, ignore)
        try:
            await self.engine.start(spec.task_id, 1)
            await self.engine.wait(spec)
        finally:
            await self.engine.remove(spec.task_id, 1)
        return (spec.stdout_path.read_text() + spec.stderr_path.read_text()).splitlines()

    async def clear(self) -> None:
        for row in await self.containers():
            try:
                await self.api.json("DELETE", f"containers/{row['Id']}", params={"force": "1", "v": "1"})
            except (NotFound, Conflict):
                continue
        for task_id in self.vps_ids:
            for at in await self.engine.snapshots.times(task_id):
                await self.engine.vps.delete_snapshot(task_id, at)
            await self.engine.snapshots.sweep(task_id)
        name = self.settings.network_name
        try:
            bridge = f"br-{(await self.api.json('GET', f'networks/{name}'))['Id'][:12]}"
            await self.api.json("DELETE", f"networks/{name}")
        except NotFound:
            return
        await asyncio.to_thread(remove_filter_tables, bridge)


async def abandon(engine: DockerEngine) -> None:
    """Stop what the object does in the background without letting it clear anything."""
    await engine.stop_jobs()
    await engine.bridge_filter.close()
    await engine.pool.stop_keeping()


def _fields(settings: DockerEngineSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__slots__}


@asynccontextmanager
async def docker_lab(
    folder: Path, pool_size: int = 1, url: str | None = None, **settings: Any
) -> AsyncIterator[DockerLab]:
    api = await DockerApi.connect(url)
    lab = DockerLab(api, folder, pool_size, settings)
    try:
        await lab.engine.open()
        yield lab
        await lab.engine.close()
    finally:
        await abandon(lab.engine)
        await lab.clear()
        await api.close()


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    """Wait for a condition with a deadline."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)
