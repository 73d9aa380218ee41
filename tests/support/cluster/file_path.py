"""The whole way of a file request in one process: the host's interface, the runner's API, the engine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from kohakuriver.host.dispatch.runners import Runners
from kohakuriver.models.enums import TaskState
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.api.routes import runner_api
from kohakuriver.runner.api.services import RunnerServices
from kohakuriver.runner.files.file_streams import FileStreams
from kohakuriver.runner.vps_service import VpsService, VpsServiceParts
from kohakuriver.wire.messages import AttemptState
from kohakuriver.wire.trust.identity import Identity, LinkKeys, Side
from support.cluster.terminal_path import OWNER, running_vps
from support.engines.labs import DockerLab, ignore
from support.host.api import ApiHarness, api_harness
from support.messages.raw_http import served_port


@dataclass
class FilePath:
    """`task_id` is a workload of `OWNER` on the engine; `root` is its `/`, as this machine sees it."""

    harness: ApiHarness
    task_id: TaskId
    root: Path

    async def call(self, method: str, name: str, who: str = OWNER, **options: Any) -> httpx2.Response:
        """Ask the host's interface, whose node gives a sign of life first."""
        alive = AttemptState(task_id=str(self.task_id), attempt=1, status=TaskState.RUNNING, revision=1)
        await self.harness.room.beat("n1", [alive])
        async with asyncio.timeout(60):
            return await self.harness.call(who, method, f"/api/fs/{self.task_id}/{name}", **options)


class _Where:
    """What `Runners` asks of the control room: one node, at one port."""

    def __init__(self, keys: LinkKeys, port: int) -> None:
        self._keys = keys
        self._port = port

    def link_keys(self, _node: str) -> LinkKeys:
        return self._keys

    def dispatch_address(self, _node: str) -> tuple[str, str]:
        return "127.0.0.1", f"http://n1:{self._port}"


@contextlib.asynccontextmanager
async def file_path(folder: Path, lab: DockerLab, **spec_changes: Any) -> AsyncIterator[FilePath]:
    host, node = Identity.generate(), Identity.generate()
    keys = host.link_keys(node.public_key, Side.HOST)
    services = RunnerServices(
        node="n1",
        keys=lambda: keys,
        take_orders=_nothing,
        list_images=_nothing,
        sync_environment=_nothing,
        remove_environment=_nothing,
        faults=list,
        local_temp_dir=folder,
        leftovers=None,  # type: ignore[arg-type]
        vps=VpsService(
            VpsServiceParts(
                lambda _: lab.engine, lambda: [lab.engine], lambda _: None, set, 0, lambda: None, folder
            )
        ),
        engine_of=lambda _: lab.engine,
        streams=FileStreams(lambda _: lab.engine).handlers(),
    )
    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(served_port(runner_api(services)))
        runners = Runners(_Where(keys, port))  # type: ignore[arg-type]
        stack.push_async_callback(runners.close)
        harness = await stack.enter_async_context(api_harness(folder))
        harness.runners.call = runners.call  # type: ignore[method-assign]
        harness.runners.open_stream = runners.open_stream  # type: ignore[method-assign]
        await harness.room.join("n1")
        task_id = await running_vps(harness)
        spec = lab.spec(*lab.argv("sleep", "600"), task_id=task_id, **spec_changes)
        await lab.engine.create(spec, ignore)
        stack.push_async_callback(lab.engine.remove, task_id, 1)
        await lab.engine.start(task_id, 1)
        yield FilePath(harness, task_id, Path(f"/proc/{await lab.first_pid(task_id)}/root"))


async def _nothing(*_: object) -> Any:
    return []
