"""Lives of VPSs: nothing that was to be kept is lost, whatever fails and whenever the runner dies."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.errors import EngineFault, KohakuRiverError, SwitchedOff, Unavailable
from kohakuriver.models.transitions import ENDED
from kohakuriver.runner.agent.life.rules import KeepingRules
from kohakuriver.runner.engines.contract.abilities import EngineAbilities, EngineAbility
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.contract.vps import KeptSnapshots
from kohakuriver.wire.messages import TaskReport
from support.runner.agent_world import (
    DEADLINE_SECONDS,
    RecordingHost,
    World,
    execute,
    execute_vps,
    order,
    process,
    until_dead_or_done,
)
from support.runner.machine_engine import Death, Machine

KEY = (7, 1)
S = TaskState
STOP = order(OrderKind.STOP, order_id=90)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_SECONDS * 2):
            await scenario

    asyncio.run(bounded())


async def begin(world: World, host: RecordingHost) -> None:
    assert await world.obey(execute_vps()) == [None]
    await host.until(lambda: S.RUNNING in host.states(KEY))


def reports(host: RecordingHost) -> list[TaskReport]:
    return host.settled()[KEY]


def test_a_vps_runs_once_it_is_ready_and_tells_its_address(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await begin(world, host)
            assert reports(host)[0].address == "172.30.0.9"
            assert machine.workloads[KEY].set_up == 1

    run(scenario())


def test_one_that_cannot_be_made_ready_fails_with_the_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            world.engine.failing["set_up"] = EngineFault("the image has no sshd")
            await world.obey(execute_vps())
            end = await host.until_ended(KEY)
            assert (end.status, end.message) == (S.FAILED, "the image has no sshd")
            await world.until(lambda: machine.workloads == {})

    run(scenario())


def test_a_stop_keeps_what_the_vps_held_and_then_ends_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await begin(world, host)
            assert await world.obey(STOP, STOP) == [None, None]
            assert (await host.until_ended(KEY)).status is S.STOPPED
            await world.until(lambda: KEY in machine.removed)
            assert machine.kept == {7: ["made when the VPS was stopped"]}
            told = [step for step in machine.steps if step in ("processes_ended", "snapshot")]
            assert told == ["processes_ended", "snapshot"], "what programs write when they end is kept"

    run(scenario())


def test_the_snapshot_that_is_started_from_next_does_not_give_way_to_the_one_of_the_stop(
    tmp_path: Path,
) -> None:
    """Also where the runner dies between the order and the snapshot."""

    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await begin(world, host)
            world.engine.failing["snapshot"] = Unavailable("the engine is unreachable")
            await world.obey(structs.replace(STOP, protected_snapshot=1_700_000_000))
        async with process(tmp_path, machine, host):
            assert (await host.until_ended(KEY)).status is S.STOPPED
            assert machine.spared == [1_700_000_000]

    run(scenario())


@pytest.mark.parametrize(
    ("most", "protected", "gone"),
    [
        (3, None, [2, 1]),
        (3, 1, [3, 2]),
        (3, 4, [2, 1]),
        (1, None, [4, 3, 2, 1]),
        (1, 2, [4, 3, 1]),
        (2, 2, [4, 3, 1]),
        (9, 1, []),
        (3, 99, [2, 1]),
    ],
)
def test_the_oldest_snapshots_give_way_but_for_the_newest_and_the_protected_one(
    most: int, protected: int | None, gone: list[int]
) -> None:
    assert KeptSnapshots(most, protected).too_old([5, 4, 3, 2, 1]) == gone


@pytest.mark.parametrize("rules", [KeepingRules(at_stop=False), KeepingRules(keep=0)])
def test_settings_that_keep_nothing_at_a_stop_make_no_snapshot(tmp_path: Path, rules: KeepingRules) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host, keeping=rules) as world:
            await begin(world, host)
            await world.obey(STOP)
            assert (await host.until_ended(KEY)).status is S.STOPPED
            assert machine.kept == {}

    run(scenario())


def test_an_engine_without_snapshots_ends_a_vps_at_a_stop(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            lacking = {EngineAbility.SNAPSHOTS: "nothing can be kept here"}
            world.engine.abilities = EngineAbilities(lacking)
            world.engine.failing["snapshot"] = SwitchedOff("nothing can be kept here")
            await begin(world, host)
            await world.obey(STOP)
            assert (await host.until_ended(KEY)).status is S.STOPPED
            assert machine.kept == {}

    run(scenario())


def test_a_vps_that_cannot_be_kept_goes_on_and_says_so_and_can_be_stopped_later(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await begin(world, host)
            world.engine.failing["snapshot"] = EngineFault("the disk is full")
            await world.obey(STOP)
            await host.until(lambda: reports(host)[-1].notice is not None)
            assert "the disk is full" in (reports(host)[-1].notice or "")
            assert (reports(host)[-1].status, reports(host)[-1].stop_given_up) == (S.RUNNING, True)
            assert machine.workloads[KEY].state is WorkloadState.RUNNING
            world.engine.failing.clear()
            await world.obey(order(OrderKind.STOP, order_id=91))
            assert (await host.until_ended(KEY)).status is S.STOPPED
            assert len(machine.kept[7]) == 1

    run(scenario())


def test_what_fell_with_its_engine_is_started_again_where_it_was(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await begin(world, host)
            await machine.finish(KEY, 137, fell=True)
            await host.until(lambda: reports(host)[-1].notice is not None)
            assert host.states(KEY) == [S.RUNNING, S.RUNNING]
            assert machine.workloads[KEY].state is WorkloadState.RUNNING
            assert machine.workloads[KEY].set_up == 2
            assert machine.kept == {}

    run(scenario())


@pytest.mark.parametrize("error", [Unavailable("the engine is unreachable"), EngineFault("sshd is gone")])
def test_one_that_cannot_be_made_ready_again_goes_on_with_what_it_holds(
    tmp_path: Path, error: KohakuRiverError
) -> None:
    """A runner that restarts while its engine is unreachable, or over a changed VPS, ends none."""

    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await begin(world, host)
        async with process(tmp_path, machine, host) as world:
            world.engine.failing["set_up"] = error
            await world.until(lambda: world.death.names.count("set_up") >= 2)
            assert KEY in machine.workloads
            world.engine.failing.clear()
            if isinstance(error, Unavailable):
                await world.until(lambda: machine.workloads[KEY].set_up == 2)
            else:
                await host.until(lambda: "sshd is gone" in (reports(host)[-1].notice or ""))
            await world.obey(STOP)
            assert (await host.until_ended(KEY)).status is S.STOPPED
            assert len(machine.kept[7]) == 1

    run(scenario())


def test_what_fell_and_cannot_be_made_ready_at_once_is_made_ready_later(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await begin(world, host)
            world.engine.failing["set_up"] = Unavailable("its network is not up yet")
            await machine.finish(KEY, 137, fell=True)
            await world.until(lambda: world.death.names.count("set_up") >= 2)
            world.engine.failing.clear()
            await world.until(lambda: machine.workloads[KEY].set_up == 2)

    run(scenario())


def test_what_ended_by_itself_is_kept_and_stopped(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await begin(world, host)
            await machine.finish(KEY, 0)
            end = await host.until_ended(KEY)
            assert (end.status, "ended by itself" in (end.message or "")) == (S.STOPPED, True)
            assert machine.kept == {7: ["made when the VPS ended by itself"]}

    run(scenario())


def test_what_ended_by_itself_and_cannot_be_kept_is_started_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await begin(world, host)
            world.engine.failing["snapshot"] = EngineFault("the disk is full")
            await machine.finish(KEY, 0)
            await host.until(lambda: reports(host)[-1].notice is not None)
            assert machine.workloads[KEY].state is WorkloadState.RUNNING
            assert not machine.removed

    run(scenario())


def test_a_kill_makes_no_snapshot_and_wins_over_a_stop(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await begin(world, host)
            await world.obey(order(OrderKind.KILL, order_id=91), STOP)
            assert (await host.until_ended(KEY)).status is S.KILLED
            assert machine.kept == {}

    run(scenario())


def test_a_paused_vps_is_adopted_as_it_is(tmp_path: Path) -> None:
    """Nothing can be set up in what is frozen; a runner that tried would hang."""

    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await begin(world, host)
            await world.obey(order(OrderKind.PAUSE, order_id=90))
            await host.until(lambda: host.states(KEY)[-1] is S.PAUSED)
        async with process(tmp_path, machine, host) as world:
            await world.obey(order(OrderKind.STOP, order_id=91))
            assert (await host.until_ended(KEY)).status is S.STOPPED
            assert machine.workloads.get(KEY) is None or machine.workloads[KEY].set_up == 1

    run(scenario())


@pytest.mark.parametrize(
    "wrong", [order(OrderKind.STOP, 9, order_id=90), order(OrderKind.STOP, 8, order_id=91)]
)
def test_a_stop_for_what_is_no_vps_here_is_refused(tmp_path: Path, wrong: Any) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await world.obey(execute(8))
            (refusal,) = await world.obey(wrong)
            assert refusal is not None

    run(scenario())


def _ended(host: RecordingHost) -> list[TaskState]:
    return [state for state in host.states(KEY) if state in ENDED]


async def _work(world: World, host: RecordingHost) -> None:
    """A VPS that is stopped while it runs; orders may be repeats."""
    await world.obey(execute_vps())
    await host.until(lambda: S.RUNNING in host.states(KEY) or bool(_ended(host)))
    await world.obey(STOP)
    await host.until(lambda: bool(_ended(host)))
    await world.until(lambda: world.agent.attempts()[0] == [])


async def _life_and_afterlife(folder: Path, at: int | None) -> int:
    folder.mkdir()
    machine, host = Machine(), RecordingHost()
    async with asyncio.timeout(DEADLINE_SECONDS * 2):
        death = Death(at)
        async with process(folder, machine, host, death) as world:
            await until_dead_or_done(world, _work(world, host))
        async with process(folder, machine, host) as world:
            await _work(world, host)
    where = f"died at step {at}: {death.names[at - 1] if at and at <= death.steps else 'never'}"
    assert machine.starts.get(KEY) == 1, where
    assert machine.workloads == {}, where
    assert _ended(host) == [S.STOPPED], where
    assert machine.kept[7], where  # more than one is possible where the runner died between, none is not
    return death.steps


def test_death_at_any_step_ends_in_one_stop_with_what_was_held_kept(tmp_path: Path) -> None:
    steps = asyncio.run(_life_and_afterlife(tmp_path / "undying", None))
    assert steps > 20
    for at in range(1, steps + 1):
        asyncio.run(_life_and_afterlife(tmp_path / str(at), at))
