"""The part of the engine contract that concerns ports in running workloads, tasks and VPSs alike."""

import asyncio
from typing import Protocol

from kohakuriver.models.ids import TaskId

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class PortTunnel(Protocol):
    """Any number of connections and flows to ports of one workload, as frames of `wire.tunnel` with credit.

    Its user is the end that opens, so CONNECT names transport and port. One reader and one writer at a time.
    A workload's own ports are all that is reached; that one cannot be is an ERROR of its stream.
    """

    async def send(self, frame: bytes) -> None:
        """Wait while no more is taken. Raises InvalidInput for a breach of the rules, else as `receive`."""

    async def receive(self) -> bytes:
        """Return the next frame; raises Unavailable with the reason once the tunnel is over."""

    def close(self) -> None:
        """Reset what is open. Free to call twice."""


class Ports(Protocol):
    async def dial(self, task_id: TaskId, port: int) -> Connection:
        """Connect to a port over TCP, without the workload's tunnel; the caller closes it.

        NotFound for a workload that is not there, Unavailable if it is not to be reached or nothing listens.
        """

    async def open_tunnel(self, task_id: TaskId) -> PortTunnel:
        """Begin one; the caller closes it, and it ends with the workload.

        NotFound for a workload that is not there, SwitchedOff where there are no tunnels, Unavailable if it
        is not to be reached now.
        """
