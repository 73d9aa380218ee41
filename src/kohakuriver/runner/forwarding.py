"""TCP connections into workloads: the stream `/ws/forward/{container}/{port}`.

A workload is named by its container, so that what the host means is the same in logs of both. Which address
that is, only the engine knows, so no stream leads anywhere but into a workload of this node.
"""

import re
from collections.abc import Callable

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.ids import TaskId, parse_task_id
from kohakuriver.models.numbers import port_number
from kohakuriver.runner.api.streams import StreamCall
from kohakuriver.runner.engines.contract.engine import Engine
from kohakuriver.streams.forwarding import OPENED, relay
from kohakuriver.streams.socket_line import SocketLine
from kohakuriver.wire.channel import Channel

FORWARD_PATH = "/ws/forward/{container}/{port}"
_CONTAINER = re.compile(r"kohakuriver-(?:vps|task)-([0-9]{1,19})")


class Forwarding:
    """Serves `FORWARD_PATH`. `engine_of` raises Unavailable while there is none."""

    def __init__(self, engine_of: Callable[[TaskId], Engine]) -> None:
        self._engine_of = engine_of

    async def serve(self, call: StreamCall, channel: Channel) -> None:
        """Dial and relay; raises InvalidInput for what is no workload or port, and what the engine raises."""
        task_id, port = _task_of(call.path["container"]), _port_of(call.path["port"])
        reader, writer = await self._engine_of(task_id).ports.dial(task_id, port)
        try:
            await channel.send(OPENED)
            await relay(channel, SocketLine(reader, writer, "the workload"))
        finally:
            writer.close()


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
