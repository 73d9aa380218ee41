"""Ports of workloads of the fake machine, which has them in `listeners` and `udp_listeners`."""

import asyncio
from functools import partial

from kohakuriver.models.errors import Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.contract.ports import Connection
from kohakuriver.runner.engines.fake.machine import FakeMachine, Place, find
from kohakuriver.runner.tunnels.dialled_tunnel import DialledTunnel
from kohakuriver.wire.tunnel.frames import Transport


class FakePorts:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    async def dial(self, task_id: TaskId, port: int) -> Connection:
        return await asyncio.open_connection(*self._place_of(task_id, Transport.TCP, port))

    async def open_tunnel(self, task_id: TaskId) -> DialledTunnel:
        workload = find(self._machine, task_id, 0)
        _check_runs(workload.state, task_id)
        tunnel = DialledTunnel(partial(self._place_of, task_id))
        workload.tunnels.append(tunnel)
        return tunnel

    def _place_of(self, task_id: TaskId, transport: Transport, port: int) -> Place:
        _check_runs(find(self._machine, task_id, 0).state, task_id)
        machine = self._machine
        listeners = machine.listeners if transport is Transport.TCP else machine.udp_listeners
        place = listeners.get((task_id, port))
        if place is None:
            raise Unavailable(f"nothing listens on port {port} of {task_id}")
        return place


def _check_runs(state: WorkloadState, task_id: TaskId) -> None:
    if state is not WorkloadState.RUNNING:
        raise Unavailable(f"the network of {task_id} is down, so it cannot be reached")
