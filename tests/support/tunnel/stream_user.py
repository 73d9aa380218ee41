"""Who opens streams to ports of a workload, over the tunnel that an engine gives."""

import asyncio

from kohakuriver.runner.engines.contract.ports import PortTunnel
from kohakuriver.wire.tunnel.end import TunnelEnd
from kohakuriver.wire.tunnel.events import Event, Received
from kohakuriver.wire.tunnel.frames import Transport
from kohakuriver.wire.tunnel.table import Role

_SECONDS = 30


class User:
    """Who opens streams over a tunnel."""

    def __init__(self, tunnel: PortTunnel) -> None:
        self.tunnel = tunnel
        self.end = TunnelEnd(Role.OPENS, credit=True)

    async def write(self) -> None:
        while written := self.end.next_frame():
            await self.tunnel.send(written[1])

    async def event(self) -> Event:
        async with asyncio.timeout(_SECONDS):
            while True:
                await self.write()
                event = self.end.receive(await self.tunnel.receive())
                if isinstance(event, Received):
                    self.end.take(event.client_id, len(event.data))
                if event is not None:
                    return event

    async def open(self, port: int, transport: Transport = Transport.TCP) -> int:
        client_id = self.end.open(transport, port)
        assert client_id is not None
        return client_id


async def until_over(user: User) -> None:
    while True:
        await user.event()
