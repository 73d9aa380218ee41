"""The whole way of a tunnel in one process: client, host, runner, and an engine at its end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kohakuriver.client.connection.host_trust import HostAccess
from kohakuriver.client.streams.forward import ForwardedPort, ForwardNews, PortForwarder
from kohakuriver.models.errors import KohakuRiverError
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.forwarding import Forwarding
from kohakuriver.wire.tunnel.life import Life
from support.cluster.terminal_path import OWNER, Wire, host_and_runner, wired
from support.engines.labs import FakeLab, ignore
from support.host.api import ApiHarness

__all__ = ["OWNER", "News", "TunnelPath", "exchange", "tunnel_path"]


class News(ForwardNews):
    """What a forwarder told, for a test to wait for."""

    def __init__(self) -> None:
        self.ports: list[ForwardedPort] = []
        self.is_ready = asyncio.Event()
        self.is_again = asyncio.Event()
        self.losses: list[str] = []
        self.refusals: list[str] = []

    def ready(self, ports: list[ForwardedPort]) -> None:
        self.ports = ports
        self.is_ready.set()

    def lost(self, reason: KohakuRiverError) -> None:
        self.losses.append(str(reason))

    def refused(self, sentence: str) -> None:
        self.refusals.append(sentence)

    def again(self) -> None:
        self.is_again.set()


@dataclass
class TunnelPath:
    """`task_id` is a workload that `OWNER` may use; `wire` carries what comes to `address`."""

    harness: ApiHarness
    lab: FakeLab
    address: str
    wire: Wire
    task_id: TaskId
    scheme: str = "http"

    def access(self, who: str) -> HostAccess:
        return HostAccess(f"{self.scheme}://{self.address}", self.harness.tokens[who], _TakesAny())  # type: ignore[arg-type]

    @contextlib.asynccontextmanager
    async def forwarding(
        self, *ports: ForwardedPort, who: str = OWNER, life: Callable[[float], Life] = Life
    ) -> AsyncIterator[tuple[News, Any]]:
        """Forward while the body runs."""
        news = News()
        forwarder = PortForwarder(self.access(who), str(self.task_id), list(ports), news, life)
        running = asyncio.ensure_future(forwarder.run())
        ready = asyncio.ensure_future(news.is_ready.wait())
        try:
            await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            yield news, forwarder
        finally:
            for task in (running, ready):
                task.cancel()
            await asyncio.gather(running, ready, return_exceptions=True)


class _TakesAny:
    def check(self, place: str, shown: str) -> None:
        """The host of this test is the one that is meant."""


@contextlib.asynccontextmanager
async def tunnel_path(folder: Path, engine: Any = None) -> AsyncIterator[TunnelPath]:
    """`engine`: in the place of the lab's, for its ports."""
    lab = FakeLab(folder / "lab")
    forwarding = Forwarding(lambda _: engine or lab.engine)
    async with contextlib.AsyncExitStack() as stack:
        harness, task_id = await stack.enter_async_context(host_and_runner(folder, forwarding.handlers()))
        await lab.engine.create(lab.spec("sleep", "600", task_id=task_id), ignore)
        stack.push_async_callback(lab.engine.remove, task_id, 0)
        await lab.engine.start(task_id, 1)
        near, wire = await stack.enter_async_context(wired(harness))
        yield TunnelPath(harness, lab, near, wire, task_id)


async def exchange(port: int, data: bytes) -> bytes:
    """Say it all to a local port, while the answer is read to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def say() -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    saying = asyncio.ensure_future(say())
    answer = await reader.read()
    await saying
    writer.close()
    return answer
