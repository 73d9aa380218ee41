"""A node that cannot run tasks says so and is tried again; it fails no more than a few of them."""

import asyncio
import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import EngineFault, InvalidInput, KohakuRiverError, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner import fitness as fitness_module
from kohakuriver.runner.agent import start_row as start_row_module
from kohakuriver.runner.agent.start_row import MOST_FAILURES, StartRow
from kohakuriver.runner.engines.contract.faults import NodeFault
from kohakuriver.runner.fitness import Fitness
from kohakuriver.runner.monitor.disk_space import DiskSpaceWatch, Place, write_fault_of
from kohakuriver.runner.rights import check_rights, locked_memory_limit
from support.host.control import control_room
from support.runner.agent_world import RecordingHost, execute, process
from support.runner.machine_engine import Machine

DEADLINE_SECONDS = 20.0


def fail(row: StartRow, *tasks: int) -> None:
    for task in tasks:
        row.failed(TaskId(task), "no journal")


def test_a_row_of_failures_of_different_tasks_takes_the_node_out() -> None:
    changes: list[str | None] = []
    row = StartRow(lambda: changes.append(row.fault))
    fail(row, 1, 2)
    assert row.fault is None
    fail(row, 3)
    assert row.fault is not None
    assert "3 tasks in a row" in row.fault
    assert "no journal" in row.fault
    assert changes == [row.fault]


def test_one_task_alone_takes_no_node_out() -> None:
    row = StartRow()
    fail(row, *[7] * 20)
    assert row.fault is None


def test_a_task_that_came_to_its_end_ends_the_row() -> None:
    row = StartRow()
    fail(row, 1, 2)
    row.succeeded()
    fail(row, 3, 4)
    assert row.fault is None


def test_failures_of_long_ago_are_no_part_of_a_row() -> None:
    now = [0.0]
    row = StartRow(clock=lambda: now[0])
    fail(row, 1, 2)
    now[0] = 7200.0
    fail(row, 3, 4)
    assert row.fault is None


def test_a_node_that_is_tried_again_goes_at_its_first_failure_and_for_longer() -> None:
    row = StartRow()
    fail(row, 1, 2, 3)
    first = row.pause_seconds
    row.try_again()
    assert row.fault is None
    fail(row, 4)
    assert row.fault is not None
    assert row.pause_seconds > first
    row.try_again()
    row.succeeded()
    fail(row, 5, 6)
    assert row.fault is None


class Proofs:
    """What each proof says; the last goes on."""

    def __init__(self, *errors: KohakuRiverError | None) -> None:
        self.left = list(errors)
        self.made = 0

    async def prove(self) -> None:
        self.made += 1
        error = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        if error is not None:
            raise error


def with_fitness(proofs: Proofs, what: Callable[[Fitness, list[str]], object]) -> None:
    async def scenario() -> None:
        told: list[str] = []
        fitness = Fitness(proofs.prove, lambda: told.append("; ".join(fitness.faults())))
        running = asyncio.create_task(fitness.run())
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await what(fitness, told)  # type: ignore[misc]
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitness_module, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(fitness_module, "ENGINE_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(start_row_module, "FIRST_PAUSE_SECONDS", 0.01)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.005)


@pytest.mark.usefixtures("short_pauses")
def test_a_failed_proof_is_told_at_once_and_taken_back_by_a_good_one() -> None:
    async def scenario(fitness: Fitness, told: list[str]) -> None:
        await until(lambda: len(told) >= 2)
        assert "the journal cannot be read" in told[0]
        assert told[1] == ""
        assert fitness.faults() == []

    with_fitness(
        Proofs(Unavailable("no engine yet"), NodeFault("the journal cannot be read"), None), scenario
    )


@pytest.mark.usefixtures("short_pauses")
def test_a_node_that_was_taken_out_is_proved_and_then_opened() -> None:
    proofs = Proofs(None)

    async def scenario(fitness: Fitness, told: list[str]) -> None:
        await until(lambda: proofs.made == 1)
        fail(fitness.starts, 1, 2, 3)
        assert "could not be run here" in told[0]
        await until(lambda: fitness.faults() == [])
        assert proofs.made == 2

    with_fitness(proofs, scenario)


def run_starts(folder: Path, error: KohakuRiverError, tasks: int) -> tuple[RecordingHost, StartRow]:
    host = RecordingHost()

    async def scenario() -> StartRow:
        async with process(folder, Machine(), host) as world:
            world.engine.failing["create"] = error
            await world.obey(*[execute(number) for number in range(1, tasks + 1)])
            for number in range(1, tasks + 1):
                await host.until_ended((number, 1))
            return world.starts

    return host, asyncio.run(scenario())


def test_what_a_node_cannot_begin_is_reported_as_never_begun(tmp_path: Path) -> None:
    host, row = run_starts(tmp_path, NodeFault("the engine lacks its docker-init program"), MOST_FAILURES)
    assert {report.never_began for report in host.reports} == {True}
    assert {report.status for report in host.reports} == {TaskState.FAILED}
    assert row.fault is not None


def test_what_is_a_tasks_own_fault_takes_no_node_out(tmp_path: Path) -> None:
    host, row = run_starts(tmp_path, EngineFault("the command 'x' was not found in the image"), 10)
    assert {report.never_began for report in host.reports} == {False}
    assert row.fault is None


def test_a_task_that_a_node_could_not_begin_runs_elsewhere_and_uses_up_no_retry(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_room(tmp_path) as room:
            await room.join("n1")
            task_id = await room.submit(None)
            await room.accept_orders("n1")
            await room.join("n2")
            await room.report(task_id, TaskState.FAILED, 1, never_began=True, message="no docker-init")
            task = await room.control.tasks.find(task_id)
            assert (task.state, task.assigned_node, task.attempt.number) == (TaskState.ASSIGNING, "n2", 2)
            assert task.retries_used == 0

    asyncio.run(scenario())


def test_a_task_that_no_node_can_begin_fails_after_a_few(tmp_path: Path) -> None:
    async def scenario() -> int:
        async with control_room(tmp_path) as room:
            await room.join("n1")
            task_id = await room.submit("n1")
            for attempt in range(1, 20):
                await room.accept_orders("n1")
                told: dict[str, Any] = {"never_began": True, "message": "no docker-init"}
                await room.report(task_id, TaskState.FAILED, 1, attempt=attempt, **told)
                if await room.state(task_id) is TaskState.FAILED:
                    assert (await room.control.tasks.find(task_id)).error_message == "no docker-init"
                    return attempt
        return 0

    assert 1 < asyncio.run(scenario()) < 10


def test_a_task_that_was_killed_is_not_begun_elsewhere(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_room(tmp_path) as room:
            await room.join("n1")
            task_id = await room.submit("n1")
            await room.accept_orders("n1")
            await room.control.tasks.kill(task_id)
            await room.report(task_id, TaskState.FAILED, 1, never_began=True, message="no docker-init")
            assert await room.state(task_id) is TaskState.FAILED

    asyncio.run(scenario())


def status_file(folder: Path, effective: int) -> Path:
    path = folder / "status"
    path.write_text(f"Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t{effective:016x}\n")
    return path


def test_a_runner_with_its_rights_starts(tmp_path: Path) -> None:
    check_rights(status_file(tmp_path, (1 << 41) - 1))


@pytest.mark.parametrize("lacking", [0, 1, 21])
def test_a_runner_without_a_right_names_it(tmp_path: Path, lacking: int) -> None:
    names = {0: "CAP_CHOWN", 1: "CAP_DAC_OVERRIDE", 21: "CAP_SYS_ADMIN"}
    with pytest.raises(InvalidInput, match=f"{names[lacking]}, to .*as root"):
        check_rights(status_file(tmp_path, ((1 << 41) - 1) & ~(1 << lacking)))


def test_memory_is_locked_without_limit_only_by_who_may_raise_limits(tmp_path: Path) -> None:
    everything = (1 << 41) - 1
    assert locked_memory_limit(status_file(tmp_path, everything)) == -1
    own = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    assert locked_memory_limit(status_file(tmp_path, everything & ~(1 << 24))) == own


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO])
def test_a_place_that_takes_no_files_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> int:
        raise OSError(number, os.strerror(number))

    place = Place("SHARED_DIR", tmp_path, None, tmp_path / "logs")
    assert write_fault_of(place, tmp_path / "logs") is None
    assert list((tmp_path / "logs").iterdir()) == []
    monkeypatch.setattr(os, "open", refuse)
    sentence = write_fault_of(place, tmp_path / "logs") or ""
    assert f"SHARED_DIR {tmp_path} takes no files" in sentence
    assert os.strerror(number) in sentence


def test_a_place_is_written_to_only_while_that_is_asked_for(tmp_path: Path) -> None:
    """A folder that is not this cluster's is left alone, and its faults are forgotten."""
    (tmp_path / "logs").write_text("no folder")
    places = [Place("SHARED_DIR", tmp_path, None, tmp_path / "logs")]

    async def scenario() -> None:
        watch = DiskSpaceWatch(lambda: places, interval_seconds=0.01)
        running = asyncio.create_task(watch.run())
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await until(lambda: any("takes no files" in fault for fault in watch.faults()))
                places[0] = Place("SHARED_DIR", tmp_path)
                await until(lambda: watch.faults() == [])
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())
