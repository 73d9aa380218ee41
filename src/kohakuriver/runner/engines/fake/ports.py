# shape: as the contract is divided
"""Ports of workloads of the fake machine; what listens stands in `FakeMachine.listeners`."""

import asyncio

from kohakuriver.models.errors import Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.contract.ports import Connection
from kohakuriver.runner.engines.fake.machine import FakeMachine, find


class FakePorts:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    async def dial(self, task_id: TaskId, port: int) -> Connection:
        if find(self._machine, task_id, 0).state is not WorkloadState.RUNNING:
            raise Unavailable(f"the network of {task_id} is down, so it cannot be reached")
        place = self._machine.listeners.get((task_id, port))
        if place is None:
            raise Unavailable(f"nothing listens on port {port} of {task_id}")
        return await asyncio.open_connection(*place)
