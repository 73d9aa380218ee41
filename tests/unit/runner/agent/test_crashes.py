"""kill -9 at every step: whatever the agent was about to do, one start and exactly one end come out of it."""

import asyncio
from pathlib import Path

import pytest

from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.transitions import FINAL
from support.runner.agent_world import (
    DEADLINE_SECONDS,
    RecordingHost,
    World,
    execute,
    order,
    process,
    until_dead_or_done,
)
from support.runner.machine_engine import Dead, Death, Machine

COMPLETED, KILLED = (7, 1), (8, 1)


async def _work(world: World, host: RecordingHost) -> None:
    """Two tasks: one that ends by itself, one that is killed while it runs. Orders may be repeats."""
    await world.obey(execute(7), execute(8))
    await host.until(lambda: TaskState.RUNNING in host.states(KILLED) or bool(_ended(host, KILLED)))
    await world.obey(order(OrderKind.KILL, 8, order_id=90))
    await host.until(lambda: bool(_ended(host, COMPLETED)) and bool(_ended(host, KILLED)))
    await world.until(lambda: world.agent.attempts()[0] == [])


def _ended(host: RecordingHost, key: tuple[int, int]) -> list[TaskState]:
    return [state for state in host.states(key) if state in FINAL]


async def _life_and_afterlife(folder: Path, at: int | None) -> int:
    """Die at a step, live again to the end; returns how many steps a life without death has."""
    folder.mkdir()
    machine, host = Machine(exits={7: 0}), RecordingHost()
    async with asyncio.timeout(DEADLINE_SECONDS * 2):
        death = Death(at)
        async with process(folder, machine, host, death) as world:
            await until_dead_or_done(world, _work(world, host))
        steps = death.steps
        async with process(folder, machine, host) as world:
            await _work(world, host)
    # How writes fall together differs, so a life may be over a few steps before the one that was counted.
    where = f"died at step {at}: {death.names[at - 1] if at and at <= steps else 'never'}"
    assert machine.starts.get(COMPLETED) == 1, where
    assert machine.starts.get(KILLED, 0) <= 1, where
    assert machine.workloads == {}, where
    for key, expected in ((COMPLETED, TaskState.COMPLETED), (KILLED, TaskState.KILLED)):
        assert _ended(host, key) == [expected], where
        assert host.states(key)[-1] is expected, where
    return steps


def test_death_at_any_step_starts_at_most_once_and_reports_one_end(tmp_path: Path) -> None:
    steps = asyncio.run(_life_and_afterlife(tmp_path / "undying", None))
    assert steps > 30
    for at in range(1, steps + 1):
        asyncio.run(_life_and_afterlife(tmp_path / str(at), at))


def test_death_is_real(tmp_path: Path) -> None:
    """The lab itself: after death nothing has an effect."""

    async def scenario() -> None:
        machine, host, death = Machine(), RecordingHost(), Death(3)
        async with process(tmp_path, machine, host, death) as world:
            await until_dead_or_done(world, _work(world, host))
            assert death.happened.is_set()
            with pytest.raises(Dead):
                death.step("any")
            assert machine.starts == {}

    asyncio.run(scenario())
