"""A sandbox that is connected to its runner, in virtual time, and a client in it that keeps the rules."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from kohakuriver.models.ids import TaskId
from kohakuriver.runner.tunnels.outer_tunnel import OuterTunnel
from kohakuriver.runner.tunnels.sandbox_tunnels import SandboxIdentity, SandboxTunnels
from kohakuriver.wire.tunnel.end import TunnelEnd
from kohakuriver.wire.tunnel.events import Event, Opened
from kohakuriver.wire.tunnel.frames import FrameType, Header, frame_of
from kohakuriver.wire.tunnel.life import Life
from kohakuriver.wire.tunnel.table import Role, TunnelBounds
from support.model.virtual_time import VirtualLoop

TASK = TaskId(7)
ONE = SandboxIdentity("id-1", "kohakuriver-sandbox-1", "172.30.0.2", b"1" * 32)
TWO = SandboxIdentity("id-2", "kohakuriver-sandbox-2", "172.30.0.3", b"2" * 32)


def frame(kind: FrameType, client_id: int, payload: bytes = b"", port: int = 80, udp: int = 0) -> bytes:
    return frame_of(Header(kind, udp, client_id, port), payload)


class Client:
    """A sandbox's client by the rules. `takes`: how many frames it takes before it stops, None: all."""

    def __init__(self) -> None:
        self.end = TunnelEnd(Role.IS_ASKED, credit=True, bounds=TunnelBounds(streams=4096))
        self.says: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.took: list[bytes] = []
        self.events: list[Event] = []
        self.takes: int | None = None
        self.goes_on = asyncio.Event()
        self.answers = True
        self.closed: int | None = None

    async def receive(self) -> str | bytes | None:
        return await self.says.get()

    async def send(self, message: str | bytes) -> None:
        while self.takes is not None and len(self.took) >= self.takes:
            self.goes_on.clear()
            await self.goes_on.wait()
        assert isinstance(message, bytes)
        self.took.append(message)
        event = self.end.receive(message)
        if event is not None:
            self.events.append(event)
        if isinstance(event, Opened):
            self.end.connected(event.client_id)
        self.speak()

    def speak(self) -> None:
        while self.answers and (written := self.end.next_frame()):
            self.says.put_nowait(written[1])

    async def close(self, code: int) -> None:
        self.closed = code

    @property
    def opened(self) -> list[int]:
        return [event.client_id for event in self.events if isinstance(event, Opened)]


class Place:
    """A sandbox that is connected."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.tunnels = SandboxTunnels(partial(Life, ping_after=20, end_after=60))
        self.tunnels.learn(ONE)
        self.client = self.connect()

    def connect(self, sandbox: SandboxIdentity = ONE) -> Client:
        client = Client()
        self.loop.do(self.tunnels.serve(sandbox, client))
        return client

    def outer(self, sandbox: SandboxIdentity = ONE, task_id: TaskId = TASK) -> OuterTunnel:
        async def begin() -> OuterTunnel:
            return self.tunnels.open_tunnel(sandbox.id, task_id)

        return self.loop.do(begin()).result()

    def send(self, outer: OuterTunnel, *frames: bytes) -> None:
        for each in frames:
            self.loop.do(outer.send(each)).result()

    def got(self, outer: OuterTunnel) -> list[bytes]:
        """What waits for the outer end."""
        got = []
        while (reading := self.loop.do(outer.receive())).done() and reading.exception() is None:
            got.append(reading.result())
        reading.cancel()
        self.loop.settle()
        return got

    def end_workload(self) -> "asyncio.Task[bool]":
        """Whether its streams are confirmed closed."""

        async def end() -> bool:
            self.tunnels.end_tunnels(ONE.id)
            return await self.tunnels.are_streams_closed(ONE.id)

        return self.loop.do(end())

    def do(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        return self.loop.do(work)
