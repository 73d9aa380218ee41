# shape: as the contract is divided
"""Standard input of workloads of the fake machine; see `engines.contract.inputs` for the contract."""

from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.fake.machine import FakeMachine, FakeWorkload, find


class FakeInputs:
    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    async def open(self, task_id: TaskId, attempt: int) -> "FakeInput":
        return FakeInput(find(self._machine, task_id, attempt))


class FakeInput:
    def __init__(self, workload: FakeWorkload) -> None:
        self._workload = workload

    async def write(self, data: bytes) -> bool:
        if self._workload.state is WorkloadState.EXITED:
            return False
        self._workload.read(data)
        return True

    async def end(self) -> None:
        self._workload.end_input()

    async def settle(self) -> None:
        return None

    async def close(self) -> None:
        self._workload.end_input()
