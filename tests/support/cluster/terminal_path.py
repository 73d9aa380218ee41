"""The whole way of a terminal in one process: host and runner on sockets, sealed streams between them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette

from kohakuriver.host.dispatch.runner_streams import RunnerStreams
from kohakuriver.models.enums import TaskState
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.api.host_credential import HostCredential
from kohakuriver.runner.api.streams import StreamHandler, Streams
from kohakuriver.runner.terminals.streams import TerminalStreams
from kohakuriver.wire.trust.identity import Identity, Side
from support.engines.labs import Lab, ignore
from support.host.api import ApiHarness, api_harness
from support.messages.raw_http import served_port

OWNER = "ursula"


class Wire:
    """A TCP relay to one port, whose connections can be cut."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0

    async def serve(self, near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        self.connections += 1
        far, far_out = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers |= {near_out, far_out}
        await asyncio.gather(_copy(near, far_out), _copy(far, near_out))

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@dataclass
class TerminalPath:
    """`task_id` is a workload of `OWNER` that runs on node n1; `wire` carries what comes to `address`."""

    harness: ApiHarness
    lab: Lab
    address: str
    wire: Wire
    task_id: TaskId
    streams: TerminalStreams

    def url(self, kind: str = "terminal", query: str = "") -> str:
        return f"ws://{self.address}/ws/task/{self.task_id}/{kind}{query}"


async def running_task(harness: ApiHarness, owner: str = OWNER) -> TaskId:
    """A task that the host knows to run on node n1, which must have joined."""
    task = await harness.submit(owner, targets=["n1"])
    await harness.call("otto", "POST", f"/api/approve/{task}")
    await harness.room.accept_orders()
    await harness.room.report(int(task), TaskState.RUNNING, 1)
    assert await harness.room.state(TaskId(int(task))) is TaskState.RUNNING
    return TaskId(int(task))


async def running_vps(harness: ApiHarness, user: str = OWNER) -> TaskId:
    """A VPS that runs on node n1, which must have joined, and that is assigned to the user."""
    body = {"target_hostname": "n1"}
    task = (await harness.call("otto", "POST", "/api/vps/create", json=body)).json()["task_id"]
    await harness.call("otto", "POST", f"/api/vps/{task}/assignments", json={"username": user})
    await harness.room.accept_orders()
    await harness.room.report(int(task), TaskState.RUNNING, 1)
    assert await harness.room.state(TaskId(int(task))) is TaskState.RUNNING
    return TaskId(int(task))


@contextlib.asynccontextmanager
async def host_and_runner(
    folder: Path, handlers: Mapping[str, StreamHandler]
) -> AsyncIterator[tuple[ApiHarness, TaskId]]:
    """A host, and the sealed streams of its node's runner, with a VPS on record that `OWNER` may use."""
    host, node = Identity.generate(), Identity.generate()
    keys = host.link_keys(node.public_key, Side.HOST)
    credential = HostCredential(Starlette(), Streams(handlers), "n1", lambda: keys)
    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(served_port(credential))
        streams = RunnerStreams(lambda _: (keys, ("127.0.0.1", f"http://n1:{port}")))
        stack.push_async_callback(streams.close)
        harness = await stack.enter_async_context(api_harness(folder, check_seconds=3600))
        harness.runners.open_stream = streams.open  # type: ignore[method-assign]
        await harness.room.join("n1")
        yield harness, await running_vps(harness)


@contextlib.asynccontextmanager
async def wired(harness: ApiHarness) -> AsyncIterator[tuple[str, Wire]]:
    """The address at which the host is reached over a wire that can be cut."""
    async with harness.served() as address:
        wire = Wire(int(address.rpartition(":")[2]))
        server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", wire
        finally:
            wire.cut()
            server.close()


@contextlib.asynccontextmanager
async def terminal_path(folder: Path, lab: Lab) -> AsyncIterator[TerminalPath]:
    terminals = TerminalStreams(lambda _: lab.engine)
    async with contextlib.AsyncExitStack() as stack:
        harness, task_id = await stack.enter_async_context(host_and_runner(folder, terminals.handlers()))
        spec = lab.spec(*lab.argv("sleep", "600"), task_id=task_id)
        await lab.engine.create(spec, ignore)
        stack.push_async_callback(lab.engine.remove, task_id, 0)
        await lab.engine.start(task_id, 1)
        near, wire = await stack.enter_async_context(wired(harness))
        stack.push_async_callback(terminals.close)
        yield TerminalPath(harness, lab, near, wire, task_id, terminals)
