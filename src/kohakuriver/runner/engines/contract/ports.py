"""The part of the engine contract that concerns TCP ports in running workloads, tasks and VPSs alike."""

import asyncio
from typing import Protocol

from kohakuriver.models.ids import TaskId

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Ports(Protocol):
    async def dial(self, task_id: TaskId, port: int) -> Connection:
        """Connect to a port; the caller closes it.

        NotFound for a workload that is not there, Unavailable if it is not to be reached or nothing listens.
        """
