"""What becomes of orders: one agent over a machine in memory, with a host that records reports."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.errors import EngineFault, NotFound, Unavailable
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.wire.messages import AttemptState
from support.runner.agent_world import DEADLINE_SECONDS, RecordingHost, execute, order, process
from support.runner.machine_engine import Machine, MachineEngine

KEY = (7, 1)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_SECONDS * 2):
            await scenario

    asyncio.run(bounded())


@pytest.mark.parametrize(
    ("exit_code", "oom", "status", "message"),
    [
        (0, False, TaskState.COMPLETED, None),
        (3, False, TaskState.FAILED, "exit status 3"),
        (137, False, TaskState.FAILED, "exit status 137"),
        (137, True, TaskState.KILLED_OOM, "the kernel ended it"),
        (0, True, TaskState.COMPLETED, "the kernel ended a process in it"),
        (3, True, TaskState.FAILED, "exit status 3; the kernel ended a process in it"),
    ],
)
def test_an_end_is_judged_by_what_the_engine_tells(
    tmp_path: Path, exit_code: int, oom: bool, status: TaskState, message: str | None
) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            assert await world.obey(execute()) == [None]
            await host.until(lambda: host.states(KEY) == [TaskState.RUNNING])
            await machine.finish(KEY, exit_code, oom_killed=oom)
            end = await host.until_ended(KEY)
            assert host.states(KEY) == [TaskState.RUNNING, status]
            assert end.exit_code == exit_code
            assert (end.message is None) if message is None else (message in (end.message or ""))
            assert (end.stdout_bytes, end.stderr_bytes) == (1, 2)
            await world.until(lambda: world.agent.attempts() == ([], 71))
            assert KEY in machine.removed

    run(scenario())


def test_an_order_sent_again_at_any_time_runs_once_and_is_answered_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(exits={7: 0}), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            answers = await asyncio.gather(*(world.obey(execute()) for _ in range(5)))
            await host.until_ended(KEY)
            await world.until(lambda: world.agent.attempts()[0] == [])
            answers.append(await world.obey(execute(), execute()))
        async with process(tmp_path, machine, host) as world:
            answers.append(await world.obey(execute()))
            assert all(refusal is None for answer in answers for refusal in answer)
            assert machine.starts == {KEY: 1}
            assert world.agent.attempts()[0] == []

    run(scenario())


def test_kill_ends_a_running_workload_as_killed(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await world.obey(execute())
            await host.until(lambda: host.states(KEY) == [TaskState.RUNNING])
            assert await world.obey(order(OrderKind.KILL), order(OrderKind.KILL)) == [None, None]
            assert (await host.until_ended(KEY)).status is TaskState.KILLED

    run(scenario())


@pytest.mark.parametrize(
    ("submitted", "killed", "given"), [(7, None, 7), (None, None, 60), (7, 3, 3), (5000, None, 600)]
)
def test_a_kill_leaves_the_grace_of_the_task_or_its_own(
    tmp_path: Path, submitted: int | None, killed: int | None, given: int
) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await world.obey(execute(grace_seconds=submitted))
            await host.until(lambda: host.states(KEY) == [TaskState.RUNNING])
            await world.obey(structs.replace(order(OrderKind.KILL), grace_seconds=killed))
            await host.until_ended(KEY)
            assert machine.graces == [given]

    run(scenario())


def test_a_further_kill_can_leave_less_time_and_never_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await world.obey(execute())
            await host.until(lambda: host.states(KEY) == [TaskState.RUNNING])
            machine.workloads[KEY].deaf = True
            for grace in (None, 600, 0):
                await world.obey(structs.replace(order(OrderKind.KILL), grace_seconds=grace))
                await world.until(lambda: bool(machine.graces))
            assert (await host.until_ended(KEY)).status is TaskState.KILLED
            assert machine.graces == [60, 0]

    run(scenario())


def test_an_attempt_that_another_one_follows_has_little_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await world.obey(execute(grace_seconds=600))
            await host.until(lambda: host.states(KEY) == [TaskState.RUNNING])
            await world.obey(execute(attempt=2))
            await host.until_ended(KEY)
            assert machine.graces == [5]

    run(scenario())


def test_kill_gives_up_an_image_that_is_still_loading(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            world.engine.create_gate.clear()
            await world.obey(execute())
            await world.until(lambda: "create" in world.death.names)
            await world.obey(order(OrderKind.KILL))
            assert (await host.until_ended(KEY)).message == "killed before it started"
            assert machine.starts == {}

    run(scenario())


def test_a_kill_that_overtakes_its_execute_order_wins(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            assert await world.obey(order(OrderKind.KILL)) == [None]
            assert (await host.until_ended(KEY)).status is TaskState.KILLED
            assert await world.obey(execute()) == [None]
        async with process(tmp_path, machine, host) as world:
            assert await world.obey(execute(), execute(8)) == [None, None]
            await host.until(lambda: host.states((8, 1)) == [TaskState.RUNNING])
            assert machine.starts == {(8, 1): 1}

    run(scenario())


def test_an_older_attempt_is_refused_and_a_newer_one_ends_it_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await world.obey(execute(attempt=2))
            await host.until(lambda: host.states((7, 2)) == [TaskState.RUNNING])
            (refusal,) = await world.obey(execute(attempt=1))
            assert refusal is not None
            assert "old" in refusal
            assert await world.obey(execute(attempt=3)) == [None]
            await host.until(lambda: host.states((7, 3)) == [TaskState.RUNNING])
            assert (7, 2) in machine.removed
            assert host.states((7, 2))[-1] is TaskState.KILLED

    run(scenario())


def test_pause_and_resume_are_reported_and_old_orders_for_them_are_void(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await world.obey(execute())
            await host.until(lambda: host.states(KEY) == [TaskState.RUNNING])
            assert await world.obey(order(OrderKind.PAUSE, order_id=80)) == [None]
            assert machine.workloads[KEY].state is WorkloadState.PAUSED
            assert await world.obey(order(OrderKind.RESUME, order_id=81)) == [None]
            assert await world.obey(order(OrderKind.PAUSE, order_id=80)) == [None]
            assert machine.workloads[KEY].state is WorkloadState.RUNNING
            await host.until(lambda: len(host.states(KEY)) == 3)
            assert host.states(KEY) == [TaskState.RUNNING, TaskState.PAUSED, TaskState.RUNNING]

    run(scenario())


def test_pause_of_what_does_not_run_here_is_refused_with_a_sentence(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with process(tmp_path, Machine(), RecordingHost()) as world:
            await world.until(lambda: world.agent.faults() == [])
            (refusal,) = await world.obey(order(OrderKind.PAUSE))
            assert refusal is not None
            assert "does not run" in refusal

    run(scenario())


@pytest.mark.parametrize("step", ["create", "start"])
def test_what_the_engine_refuses_fails_with_its_sentence(tmp_path: Path, step: str) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            world.engine.failing[step] = EngineFault("no such program in the image")
            await world.obey(execute())
            end = await host.until_ended(KEY)
            assert (end.status, end.message) == (TaskState.FAILED, "no such program in the image")
            await world.until(lambda: world.agent.attempts()[0] == [])
            assert machine.workloads == {}

    run(scenario())


@pytest.mark.parametrize("step", ["create", "start", "wait", "remove"])
def test_an_engine_that_is_unreachable_for_a_moment_costs_nothing(tmp_path: Path, step: str) -> None:
    async def scenario() -> None:
        machine, host = Machine(exits={7: 0}), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            world.engine.failing[step] = Unavailable("the daemon restarts")
            await world.obey(execute())
            await world.until(lambda: world.death.names.count(step) >= 2)
            world.engine.failing.clear()
            assert (await host.until_ended(KEY)).status is TaskState.COMPLETED
            await world.until(lambda: world.agent.attempts()[0] == [])
            assert machine.starts == {KEY: 1}

    run(scenario())


def test_a_defect_in_one_attempt_fails_that_one_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            world.engine.failing["wait"] = ZeroDivisionError("defect")
            await world.obey(execute())
            end = await host.until_ended(KEY)
            assert "the runner failed" in (end.message or "")
            world.engine.failing.clear()
            await world.obey(execute(8))
            await host.until(lambda: host.states((8, 1)) == [TaskState.RUNNING])

    run(scenario())


def test_reports_wait_for_a_host_that_is_unreachable_and_come_once_and_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(exits={7: 0}), RecordingHost(down=True)
        async with process(tmp_path, machine, host) as world:
            await world.obey(execute())
            await world.until(lambda: world.agent.attempts()[0][0].revision == 2)
        async with process(tmp_path, machine, host) as world:
            host.down, host.lossy = False, True
            world.agent.host_is_back()
            await host.until_ended(KEY)
            await world.until(lambda: world.agent.attempts()[0] == [])
            assert host.states(KEY) == [TaskState.RUNNING, TaskState.COMPLETED]
            assert [report.revision for report in host.settled()[KEY]] == [1, 2]

    run(scenario())


def test_running_workloads_are_adopted_and_their_end_is_collected(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await world.obey(execute(), execute(8), execute(9))
            await host.until(lambda: all(host.states((task, 1)) for task in (7, 8, 9)))
            await world.obey(order(OrderKind.PAUSE, 9))
        assert len(machine.workloads) == 3
        await machine.finish((8, 1), 4)
        machine.workloads[(9, 1)].state = WorkloadState.RUNNING
        async with process(tmp_path, machine, host) as world:
            assert (await host.until_ended((8, 1))).message == "exit status 4"
            await host.until(lambda: host.states((9, 1))[-1] is TaskState.RUNNING)
            await machine.finish(KEY, 0)
            assert (await host.until_ended(KEY)).status is TaskState.COMPLETED
            assert set(machine.starts.values()) == {1}

    run(scenario())


def test_a_started_workload_that_vanished_failed_and_an_unstarted_one_is_begun_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await world.obey(execute())
            await host.until(lambda: host.states(KEY) == [TaskState.RUNNING])
            world.engine.create_gate.clear()
            await world.obey(execute(8))
        machine.workloads.clear()
        async with process(tmp_path, machine, host) as world:
            assert "vanished" in ((await host.until_ended(KEY)).message or "")
            await host.until(lambda: host.states((8, 1)) == [TaskState.RUNNING])
            assert machine.starts == {KEY: 1, (8, 1): 1}

    run(scenario())


def test_a_stray_is_listed_and_ended_only_when_the_host_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path / "other", machine, host) as world:
            await world.obey(execute())
            await host.until(lambda: host.states(KEY) == [TaskState.RUNNING])
        async with process(tmp_path, machine, host) as world:
            await world.until(lambda: len(world.agent.attempts()[0]) == 1)
            (stray,) = world.agent.attempts()[0]
            assert (stray.task_id, stray.attempt, stray.status) == ("7", 1, TaskState.RUNNING)
            other = AttemptState(task_id="7", attempt=2, status=TaskState.RUNNING, revision=0)
            await world.agent.end_attempts([other])
            assert KEY in machine.workloads
            await world.agent.end_attempts([stray])
            await world.until(lambda: world.agent.attempts()[0] == [])
            assert machine.workloads == {}

    (tmp_path / "other").mkdir()
    run(scenario())


def test_an_unwanted_attempt_is_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await world.obey(execute())
            await host.until(lambda: host.states(KEY) == [TaskState.RUNNING])
            await world.agent.end_attempts(world.agent.attempts()[0])
            await host.until_ended(KEY)
            await world.until(lambda: machine.workloads == {})

    run(scenario())


def test_orders_are_taken_while_the_engine_is_down_and_carried_out_when_it_is_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        up = asyncio.Event()

        async def open_engine(engine: MachineEngine) -> MachineEngine:
            if not up.is_set():
                raise Unavailable("no daemon answers")
            return engine

        async with process(tmp_path, machine, host, open_engine=open_engine) as world:
            await world.until(lambda: world.agent.faults() == ["no daemon answers"])
            assert await world.obey(execute()) == [None]
            assert world.agent.attempts()[0][0].status is TaskState.ASSIGNING
            up.set()
            await host.until(lambda: host.states(KEY) == [TaskState.RUNNING])
            assert world.agent.faults() == []

    run(scenario())


def test_ending_the_runner_leaves_workloads_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await world.obey(execute())
            await host.until(lambda: host.states(KEY) == [TaskState.RUNNING])
            world.running.cancel()
            await asyncio.gather(world.running, return_exceptions=True)
            assert "stop" not in world.death.names
            assert machine.workloads[KEY].state is WorkloadState.RUNNING
            with pytest.raises(Unavailable):
                await world.obey(execute(8))

    run(scenario())


@pytest.mark.parametrize("step", ["start", "wait"])
def test_a_workload_that_vanishes_fails_and_is_lost_to_the_system(tmp_path: Path, step: str) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            world.engine.failing[step] = NotFound("gone")
            await world.obey(execute())
            ended = await host.until_ended(KEY)
            assert (ended.status, ended.lost_to_system) == (TaskState.FAILED, True)
            assert "vanished" in (ended.message or "")

    run(scenario())


def test_the_digest_of_the_image_is_reported_also_by_a_runner_that_was_restarted(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await world.obey(execute())
            await host.until(lambda: host.states(KEY) == [TaskState.RUNNING])
        async with process(tmp_path, machine, host):
            await machine.finish(KEY, 0)
            await host.until_ended(KEY)
        assert {report.image_digest for report in host.reports} == {"sha256:7"}

    run(scenario())


def test_how_far_an_image_is_stands_in_the_list_for_the_host_until_it_is_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(exits={7: 0}), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            world.engine.create_gate.clear()
            await world.obey(execute())
            await world.until(lambda: [each.progress for each in world.agent.attempts()[0]] == ["half"])
            world.engine.create_gate.set()
            await host.until_ended(KEY)
            assert all(each.progress is None for each in world.agent.attempts()[0])

    run(scenario())
