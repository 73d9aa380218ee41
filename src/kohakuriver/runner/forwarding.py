"""Ports of workloads as streams: `/ws/forward/{container}/{port}` is one TCP connection, and a tunnel, which
carries any number of connections and flows, is `/ws/forward/{container}`.

A workload is named by its container, so that what the host means is the same in logs of both. Which address
that is, only the engine knows, so no stream leads anywhere but into a workload of this node.
"""

import re
from collections.abc import Callable
from typing import NoReturn

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.ids import TaskId, parse_task_id
from kohakuriver.models.numbers import port_number
from kohakuriver.runner.api.streams import StreamCall, StreamHandler
from kohakuriver.runner.engines.contract.engine import Engine
from kohakuriver.runner.engines.contract.ports import PortTunnel
from kohakuriver.streams.forwarding import OPENED, relay
from kohakuriver.streams.pumping import first_to_end
from kohakuriver.streams.socket_line import SocketLine
from kohakuriver.wire.channel import Channel

FORWARD_PATH = "/ws/forward/{container}/{port}"
TUNNEL_PATH = "/ws/forward/{container}"
_CONTAINER = re.compile(r"kohakuriver-(?:vps|task)-([0-9]{1,19})")


class Forwarding:
    """Serves both paths. `engine_of` raises Unavailable while there is none."""

    def __init__(self, engine_of: Callable[[TaskId], Engine]) -> None:
        self._engine_of = engine_of

    def handlers(self) -> dict[str, StreamHandler]:
        return {FORWARD_PATH: self.serve, TUNNEL_PATH: self.serve_tunnel}

    async def serve(self, call: StreamCall, channel: Channel) -> None:
        """Dial and relay; raises InvalidInput for what is no workload or port, and what the engine raises."""
        task_id, port = _task_of(call.path["container"]), _port_of(call.path["port"])
        reader, writer = await self._engine_of(task_id).ports.dial(task_id, port)
        try:
            await channel.send(OPENED)
            await relay(channel, SocketLine(reader, writer, "the workload"))
        finally:
            writer.close()

    async def serve_tunnel(self, call: StreamCall, channel: Channel) -> None:
        """Pass frames on; raises what the engine raises, InvalidInput for a breach of the rules."""
        task_id = _task_of(call.path["container"])
        tunnel = await self._engine_of(task_id).ports.open_tunnel(task_id)
        try:
            await channel.send(OPENED)
            await first_to_end(_pass_in(channel, tunnel), _pass_out(tunnel, channel))
        finally:
            tunnel.close()


async def _pass_in(channel: Channel, tunnel: PortTunnel) -> None:
    while (message := await channel.receive()) is not None:
        if isinstance(message, str):
            raise InvalidInput("what came is no frame of a tunnel")
        await tunnel.send(message)


async def _pass_out(tunnel: PortTunnel, channel: Channel) -> NoReturn:
    while True:
        await channel.send(await tunnel.receive())


def _task_of(container: str) -> TaskId:
    match = _CONTAINER.fullmatch(container)
    if match is None:
        raise InvalidInput(f"{container[:80]!r} is no workload of a runner")
    return parse_task_id(match[1])


def _port_of(text: str) -> int:
    port = port_number(text)
    if port is None:
        raise InvalidInput(f"{text[:20]!r} is not a port; ports are numbers from 1 to 65535")
    return port
