"""The agent under a host that repeats, reorders and forgets, on a machine where the process dies at any time.

After each step: no command was started twice, no attempt was ended twice. At the end, when all is calm: every
accepted attempt has one final report, and nothing is left on the machine.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kohakuriver.models.enums import OrderKind
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.transitions import FINAL
from kohakuriver.runner.engines.contract.engine import WorkloadState
from support.runner.agent_world import RecordingHost, World, execute, order, process
from support.runner.machine_engine import Death, Machine

TASKS = st.integers(1, 3)
ATTEMPTS = st.integers(1, 3)


class AgentMachine(RuleBasedStateMachine):
    """One runner over its lives."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="agent-model-"))
        self.machine, self.host = Machine(), RecordingHost()
        self.accepted: set[tuple[int, int]] = set()
        self.orders = 0
        self.context: Any = None
        self.world: World

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(30):
                return await work

        return self.loop.run_until_complete(bounded())

    @initialize()
    def begin(self) -> None:
        self._do(self._live(None))

    async def _live(self, dies_at: int | None) -> None:
        self.context = process(self.folder, self.machine, self.host, Death(dies_at))
        self.world = await self.context.__aenter__()

    @rule(dies_at=st.none() | st.integers(1, 60), reboot=st.booleans())
    def die_and_live_again(self, dies_at: int | None, reboot: bool) -> None:
        """kill -9 now, and in the next life perhaps at a later step; or the machine loses all it ran."""
        self._do(self.context.__aexit__(None, None, None))
        if reboot:
            self.machine.workloads.clear()
        self._do(self._live(dies_at))

    @rule(task=TASKS, attempt=ATTEMPTS)
    def order_to_execute(self, task: int, attempt: int) -> None:
        self.orders += 1
        if self._obeyed(execute(task, attempt, order_id=self.orders)):
            self.accepted.add((task, attempt))

    @rule(
        task=TASKS,
        attempt=ATTEMPTS,
        kind=st.sampled_from([OrderKind.KILL, OrderKind.PAUSE, OrderKind.RESUME]),
    )
    def order_otherwise(self, task: int, attempt: int, kind: OrderKind) -> None:
        self.orders += 1
        if self._obeyed(order(kind, task, attempt, self.orders)) and kind is OrderKind.KILL:
            self.accepted.add((task, attempt))

    def _obeyed(self, wanted: Any) -> bool:
        async def give() -> bool:
            asking = asyncio.ensure_future(self.world.obey(wanted))
            death = asyncio.ensure_future(self.world.death.happened.wait())
            await asyncio.wait({asking, death}, return_when=asyncio.FIRST_COMPLETED)
            for each in (asking, death):
                each.cancel()
            answers, _ = await asyncio.gather(asking, death, return_exceptions=True)
            if isinstance(answers, BaseException):
                assert self.world.death.happened.is_set() or isinstance(answers, Unavailable), answers
                return False
            return bool(answers == [None])

        return bool(self._do(give()))

    @rule(exit_code=st.integers(0, 2))
    def a_workload_ends(self, exit_code: int) -> None:
        """Not a precondition: what runs by now depends on the threads of the journal."""
        running = [key for key, w in self.machine.workloads.items() if w.state is WorkloadState.RUNNING]
        if running:
            self._do(self.machine.finish(running[0], exit_code))

    @rule()
    def the_host_goes_or_comes(self) -> None:
        self.host.down = not self.host.down

    @rule()
    def an_answer_of_the_host_is_lost(self) -> None:
        self.host.lossy = True

    @rule()
    def time_passes(self) -> None:
        self._do(asyncio.sleep(0.003))

    @invariant()
    def nothing_is_started_or_ended_twice(self) -> None:
        assert all(count == 1 for count in self.machine.starts.values())
        for key, row in self.host.settled().items():
            finals = [report.status for report in row if report.status in FINAL]
            assert len(finals) <= 1, (key, finals)
            assert not finals or row[-1].status in FINAL

    def teardown(self) -> None:
        try:
            if self.context is not None:
                self._calm_down()
        finally:
            self.loop.close()
            shutil.rmtree(self.folder)

    def _calm_down(self) -> None:
        self._do(self.context.__aexit__(None, None, None))
        self.host.down = self.host.lossy = False
        self._do(self._live(None))
        self._do(self._end_everything())
        self._do(self.context.__aexit__(None, None, None))
        self.nothing_is_started_or_ended_twice()
        assert self.machine.workloads == {}
        unfinished = {key for key in self.accepted if not self._is_accounted_for(key)}
        assert not unfinished

    async def _end_everything(self) -> None:
        while self.world.agent.attempts()[0]:
            self.world.agent.host_is_back()
            for key, workload in list(self.machine.workloads.items()):
                if workload.state in (WorkloadState.RUNNING, WorkloadState.PAUSED):
                    await self.machine.finish(key, 0)
            await asyncio.sleep(0.002)

    def _is_accounted_for(self, key: tuple[int, int]) -> bool:
        """It has a final report; or a newer attempt of the task was accepted, which makes it void."""
        newer = any(task == key[0] and attempt > key[1] for task, attempt in self.accepted)
        states = self.host.states(key)
        return newer or bool(states and states[-1] in FINAL)


TestAgentMachine = AgentMachine.TestCase
TestAgentMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
