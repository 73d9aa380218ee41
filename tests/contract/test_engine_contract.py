"""The rules of `engines.contract.engine`, over the fake and the real engine alike."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kohakuriver.models.errors import Conflict, EngineFault, NotFound
from kohakuriver.runner.engines.contract.engine import ExitResult, WorkloadState
from kohakuriver.runner.engines.contract.spec import UserIds, WorkloadSpec
from support.engines import Lab, ignore, until

pytestmark = pytest.mark.anyio
POOL_SIZE = 2


async def run(lab: Lab, spec: WorkloadSpec) -> ExitResult:
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, spec.attempt)
    result = await lab.engine.wait(spec)
    await lab.engine.remove(spec.task_id, spec.attempt)
    return result


async def running(lab: Lab, seconds: str = "60") -> WorkloadSpec:
    spec = lab.spec(*lab.argv("sleep", seconds))
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    return spec


async def state_of(lab: Lab, spec: WorkloadSpec) -> WorkloadState | None:
    found = {workload.task_id: workload.state for workload in await lab.engine.list_workloads()}
    return found.get(spec.task_id)


@pytest.mark.parametrize(
    ("words", "code"), [(("true",), 0), (("exit", "3"), 3), (("exit", "137"), 137), (("exit", "255"), 255)]
)
async def test_the_exit_status_is_the_commands_own(lab: Lab, words: tuple[str, ...], code: int) -> None:
    result = await run(lab, lab.spec(*lab.argv(*words)))
    assert (result.exit_code, result.oom_killed, result.error) == (code, False, None)


async def test_times_are_aware_and_in_order(lab: Lab) -> None:
    before = datetime.now(UTC)
    result = await run(lab, lab.spec(*lab.argv("sleep", "0.3")))
    assert before - timedelta(seconds=1) < result.started_at < result.finished_at <= datetime.now(UTC)
    assert timedelta(seconds=0.25) < result.finished_at - result.started_at < timedelta(seconds=5)


async def test_both_streams_stand_in_their_files_when_wait_returns(lab: Lab) -> None:
    for words, stdout, stderr in (
        (("print", "out\nno end"), b"out\nno end", b""),
        (("complain", "err\n"), b"", b"err\n"),
    ):
        spec = lab.spec(*lab.argv(*words))
        result = await run(lab, spec)
        assert (spec.stdout_path.read_bytes(), spec.stderr_path.read_bytes()) == (stdout, stderr)
        assert (result.stdout_bytes, result.stderr_bytes) == (len(stdout), len(stderr))


async def test_wait_completes_a_file_that_holds_a_part_and_repeats_nothing(lab: Lab) -> None:
    spec = lab.spec(*lab.argv("print", "0123456789\nabc"))
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    await until_ended(lab, spec)
    spec.stdout_path.write_bytes(b"01234")
    await lab.engine.wait(spec)
    await lab.engine.wait(spec)
    assert spec.stdout_path.read_bytes() == b"0123456789\nabc"
    await lab.engine.remove(spec.task_id, 1)


async def until_output(spec: WorkloadSpec) -> None:
    """Until the command is far enough to have said something."""

    async def has_output() -> bool:
        return spec.stdout_path.stat().st_size > 0

    await until(has_output)


async def until_ended(lab: Lab, spec: WorkloadSpec) -> None:
    async def ended() -> bool:
        return await state_of(lab, spec) is WorkloadState.EXITED

    await until(ended)


async def test_a_new_attempt_begins_with_empty_files(lab: Lab) -> None:
    spec = lab.spec(*lab.argv("print", "first"))
    await run(lab, spec)
    second = replace(spec, attempt=2, argv=lab.argv("print", "2nd"))
    await run(lab, second)
    assert spec.stdout_path.read_bytes() == b"2nd"


async def test_a_memory_hog_is_reported_as_such(lab: Lab) -> None:
    result = await run(lab, lab.spec(*lab.argv("oom"), memory_bytes=24 << 20))
    assert result.oom_killed
    assert result.exit_code == 137


@pytest.mark.parametrize("status", ["0", "3"])
async def test_a_child_that_is_killed_for_memory_is_told_and_the_status_is_its_parents(
    lab: Lab, status: str
) -> None:
    result = await run(lab, lab.spec(*lab.argv("outlive", status), memory_bytes=24 << 20))
    assert (result.exit_code, result.oom_killed) == (int(status), True)


async def test_stop_ends_a_workload_that_ignores_sigterm(lab: Lab) -> None:
    spec = lab.spec(*lab.argv("stubborn", "60"))
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    waiting = asyncio.ensure_future(lab.engine.wait(spec))
    await until_output(spec)
    await lab.engine.stop(spec.task_id, 1, grace_seconds=0.2)
    result = await waiting
    assert (result.exit_code, result.oom_killed) == (137, False)
    await lab.engine.stop(spec.task_id, 1, grace_seconds=0.2)  # of what has ended: nothing to do
    await lab.engine.remove(spec.task_id, 1)


async def test_a_plain_command_ends_at_sigterm_within_the_grace(lab: Lab) -> None:
    spec = await running(lab)
    async with asyncio.timeout(20):
        await lab.engine.stop(spec.task_id, 1, grace_seconds=60)
    assert (await lab.engine.wait(spec)).exit_code == 143
    await lab.engine.remove(spec.task_id, 1)


async def begin_pair(lab: Lab, user: UserIds) -> tuple[WorkloadSpec, "asyncio.Future[ExitResult]"]:
    """Two processes that say which signals they get, both ready for them."""
    spec = lab.spec(*lab.argv("pair", "60"), user=user)
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    waiting = asyncio.ensure_future(lab.engine.wait(spec))
    await until_output(spec)
    return spec, waiting


async def test_sigterm_reaches_every_process_and_the_first_to_end_takes_no_other_with_it(lab: Lab) -> None:
    spec, waiting = await begin_pair(lab, UserIds(0, 0))
    await lab.engine.stop(spec.task_id, 1, grace_seconds=60)
    assert (await waiting).exit_code == 143
    assert set(spec.stdout_path.read_text().split("\n")) >= {"first TERM", "second TERM"}
    await lab.engine.remove(spec.task_id, 1)


async def test_a_stop_that_was_cut_off_is_gone_on_with(lab: Lab) -> None:
    spec = lab.spec(*lab.argv("stubborn", "60"))
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    waiting = asyncio.ensure_future(lab.engine.wait(spec))
    await until_output(spec)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await lab.engine.stop(spec.task_id, 1, grace_seconds=60)
    await lab.engine.stop(spec.task_id, 1, grace_seconds=0)
    assert (await waiting).exit_code == 137
    await lab.engine.remove(spec.task_id, 1)


@pytest.mark.parametrize("user", [UserIds(0, 0), UserIds(4321, 4321)])
async def test_a_signal_reaches_every_process_once_and_ends_nothing_by_itself(
    lab: Lab, user: UserIds
) -> None:
    spec, waiting = await begin_pair(lab, user)
    await lab.engine.processes.signal(spec.task_id, "USR1")
    assert await state_of(lab, spec) is WorkloadState.RUNNING
    await until_said(spec, "second USR1")
    await lab.engine.stop(spec.task_id, 1, grace_seconds=60)
    await waiting
    said = spec.stdout_path.read_text().split("\n")
    assert (said.count("first USR1"), said.count("second USR1")) == (1, 1)
    with pytest.raises(Conflict):
        await lab.engine.processes.signal(spec.task_id, "USR1")
    await lab.engine.remove(spec.task_id, 1)


async def until_said(spec: WorkloadSpec, text: str) -> None:
    async def has_said() -> bool:
        return text in spec.stdout_path.read_text()

    await until(has_said)


async def test_a_command_reads_what_is_written_and_then_an_end_of_file(lab: Lab) -> None:
    data = bytes(range(256)) * 2048
    spec = lab.spec(*lab.argv("cat"), stdin=data)
    await lab.engine.create(spec, ignore)
    pipe = await lab.engine.inputs.open(spec.task_id, 1)
    await lab.engine.start(spec.task_id, 1)
    waiting = asyncio.ensure_future(lab.engine.wait(spec))
    for begin in range(0, len(data), 100_000):
        assert await pipe.write(data[begin : begin + 100_000])
    assert not waiting.done()
    await pipe.end()
    assert (await waiting).exit_code == 0
    await pipe.settle()
    assert spec.stdout_path.read_bytes() == data
    assert not await pipe.write(b"more")
    await pipe.close()
    await pipe.close()
    await lab.engine.remove(spec.task_id, 1)


async def test_input_that_nobody_reads_holds_up_no_end(lab: Lab) -> None:
    spec = lab.spec(*lab.argv("sleep", "0.3"), stdin=b"x")
    await lab.engine.create(spec, ignore)
    pipe = await lab.engine.inputs.open(spec.task_id, 1)
    await lab.engine.start(spec.task_id, 1)

    async def write_on() -> None:
        while await pipe.write(b"x" * 65536):
            await asyncio.sleep(0)

    async with asyncio.timeout(20):
        writing = asyncio.ensure_future(write_on())
        assert (await lab.engine.wait(spec)).exit_code == 0
        await writing
    await pipe.close()
    await lab.engine.remove(spec.task_id, 1)


async def test_without_input_a_command_reads_an_end_of_file(lab: Lab) -> None:
    assert (await run(lab, lab.spec(*lab.argv("cat")))).exit_code == 0


async def test_a_command_that_kills_itself_is_no_memory_hog(lab: Lab) -> None:
    result = await run(lab, lab.spec(*lab.argv("suicide")))
    assert (result.exit_code, result.oom_killed) == (137, False)


async def test_a_paused_workload_stands_still_until_it_is_resumed(lab: Lab) -> None:
    spec = await running(lab, "0.5")
    await lab.engine.pause(spec.task_id, 1)
    await lab.engine.pause(spec.task_id, 1)
    assert await state_of(lab, spec) is WorkloadState.PAUSED
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.8):
            await lab.engine.wait(spec)
    await lab.engine.resume(spec.task_id, 1)
    await lab.engine.resume(spec.task_id, 1)
    assert (await lab.engine.wait(spec)).exit_code == 0
    with pytest.raises(EngineFault):
        await lab.engine.pause(spec.task_id, 1)
    await lab.engine.remove(spec.task_id, 1)


async def test_stop_thaws_what_is_paused(lab: Lab) -> None:
    spec = await running(lab)
    await lab.engine.pause(spec.task_id, 1)
    await lab.engine.stop(spec.task_id, 1, grace_seconds=20)
    assert (await lab.engine.wait(spec)).exit_code == 143
    await lab.engine.remove(spec.task_id, 1)


async def test_a_workload_outlives_the_engine_object_and_is_found_again(lab: Lab) -> None:
    spec = await running(lab, "600")
    waiting = asyncio.ensure_future(lab.engine.wait(spec))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await lab.restart()
    assert await state_of(lab, spec) is WorkloadState.RUNNING
    await lab.engine.stop(spec.task_id, 1, 0)
    assert (await lab.engine.wait(spec)).exit_code == 137
    await lab.engine.remove(spec.task_id, 1)
    assert await state_of(lab, spec) is None


async def test_a_command_starts_at_most_once_however_often_start_is_called(lab: Lab, tmp_path: Path) -> None:
    spec = lab.spec(*lab.argv("print", "once"))
    await lab.engine.create(spec, ignore)
    await lab.engine.create(spec, ignore)
    first = await lab.engine.start(spec.task_id, 1)
    await lab.engine.wait(spec)
    await lab.engine.start(spec.task_id, 1)
    await lab.engine.create(spec, ignore)
    await lab.restart()
    await lab.engine.create(spec, ignore)
    assert abs(await lab.engine.start(spec.task_id, 1) - first) < timedelta(seconds=1)
    await lab.engine.wait(spec)
    assert spec.stdout_path.read_bytes() == b"once"
    await lab.engine.remove(spec.task_id, 1)


async def test_created_by_one_object_it_is_started_by_the_next(lab: Lab) -> None:
    spec = lab.spec(*lab.argv("print", "late"))
    await lab.engine.create(spec, ignore)
    await lab.restart()
    assert await state_of(lab, spec) is WorkloadState.CREATED
    with pytest.raises(EngineFault, match="not started"):
        await lab.engine.wait(spec)
    await lab.engine.start(spec.task_id, 1)
    await lab.engine.wait(spec)
    assert spec.stdout_path.read_bytes() == b"late"
    await lab.engine.remove(spec.task_id, 1)


async def test_a_command_that_is_missing_is_named_in_the_fault(lab: Lab) -> None:
    """Some engines know it when they start the command, some when it has ended."""
    spec = lab.spec(*lab.argv("missing"))
    await lab.engine.create(spec, ignore)
    try:
        await lab.engine.start(spec.task_id, 1)
        result = await lab.engine.wait(spec)
        assert result.exit_code == 127
        sentence = str(result.error)
    except EngineFault as error:
        sentence = str(error)
    assert re.search("'.*missing' was not found in the image", sentence)
    await lab.engine.remove(spec.task_id, 1)


async def test_remove_may_be_repeated_and_ends_what_runs(lab: Lab) -> None:
    spec = await running(lab)
    await lab.engine.remove(spec.task_id, 1)
    await lab.engine.remove(spec.task_id, 1)
    await lab.engine.remove(spec.task_id, 0)
    assert await state_of(lab, spec) is None
    with pytest.raises(NotFound):
        await lab.engine.wait(spec)
    with pytest.raises(NotFound):
        await lab.engine.start(spec.task_id, 1)


async def test_calls_for_another_attempt_are_refused(lab: Lab) -> None:
    spec = await running(lab)
    stale = replace(spec, attempt=2)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: lab.engine.create(stale, ignore),
        lambda: lab.engine.start(spec.task_id, 2),
        lambda: lab.engine.wait(stale),
        lambda: lab.engine.stop(spec.task_id, 2, 0.1),
        lambda: lab.engine.remove(spec.task_id, 2),
        lambda: lab.engine.pause(spec.task_id, 2),
        lambda: lab.engine.resume(spec.task_id, 2),
    ]
    for call in calls:
        with pytest.raises(EngineFault, match="attempt"):
            await call()
    assert await state_of(lab, spec) is WorkloadState.RUNNING
    await lab.engine.remove(spec.task_id, 0)


async def test_wait_says_that_a_workload_vanished(lab: Lab) -> None:
    spec = await running(lab)
    waiting = asyncio.ensure_future(lab.engine.wait(spec))
    await asyncio.sleep(0.05)
    await lab.engine.remove(spec.task_id, 1)
    # Killed on removal: either its end was still seen, or that it is gone; never a hang, never a success.
    try:
        async with asyncio.timeout(20):
            assert (await waiting).exit_code == 137
    except NotFound:
        assert await state_of(lab, spec) is None


async def test_many_at_once_do_not_disturb_each_other(lab: Lab) -> None:
    specs = [lab.spec(*lab.argv("print", f"number {number}")) for number in range(8)]
    await asyncio.gather(*(run(lab, spec) for spec in specs))
    assert [spec.stdout_path.read_text() for spec in specs] == [f"number {number}" for number in range(8)]
