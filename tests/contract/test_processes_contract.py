"""The rules of `engines.contract.processes`, over the fake and the real engine alike."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kohakuriver.models.enums import Flow
from kohakuriver.models.errors import Conflict, EngineFault, NotFound, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.processes import ExecRequest, Process
from support.engines.labs import FakeLab, Lab, fresh_task_id, ignore
from support.engines.process_output import until_shown

pytestmark = pytest.mark.anyio

WORDS = {
    "cat": ("/bin/cat",),
    "print": ("/bin/printf", "%s"),
    "complain": ("/bin/sh", "-c", 'printf %s "$0" >&2'),
    "exit": ("/bin/sh", "-c", 'exit "$0"'),
    "sleep": ("/bin/sleep",),
    "flood": ("/bin/head", "/dev/zero", "-c"),
    "suicide": ("/bin/sh", "-c", "kill -9 $$"),
    "missing": ("missing",),
}


@pytest.fixture
async def workload(lab: Lab) -> AsyncIterator[TaskId]:
    spec = lab.spec(*lab.argv("sleep", "600"))
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    yield spec.task_id
    await lab.engine.remove(spec.task_id, 0)


def request(lab: Lab, *words: str, **changes: Any) -> ExecRequest:
    argv = words if isinstance(lab, FakeLab) or not words else (*WORDS[words[0]], *words[1:])
    return ExecRequest(argv, **changes)


@asynccontextmanager
async def opened(lab: Lab, task_id: TaskId, *words: str, **changes: Any) -> AsyncIterator[Process]:
    process = await lab.engine.processes.open(task_id, request(lab, *words, **changes))
    try:
        async with asyncio.timeout(60):
            yield process
    finally:
        await process.close()


async def rest_of(process: Process) -> dict[Flow, bytes]:
    output = {Flow.OUTPUT: b"", Flow.ERROR: b""}
    while (piece := await process.read()) is not None:
        output[piece[0]] += piece[1]
    return output


@pytest.mark.parametrize(
    ("words", "flow"), [(("print", "out\n"), Flow.OUTPUT), (("complain", "no\n"), Flow.ERROR)]
)
async def test_output_and_error_output_arrive_apart_and_whole(
    lab: Lab, workload: TaskId, words: tuple[str, str], flow: Flow
) -> None:
    async with opened(lab, workload, *words) as process:
        output = await rest_of(process)
        assert output.pop(flow) == words[1].encode()
        assert list(output.values()) == [b""]
        assert await process.exit_status() == 0


@pytest.mark.parametrize("status", [0, 3, 126, 127, 137])
async def test_the_exit_status_is_the_programs_own(lab: Lab, workload: TaskId, status: int) -> None:
    async with opened(lab, workload, "exit", str(status)) as process:
        assert await rest_of(process) == {Flow.OUTPUT: b"", Flow.ERROR: b""}
        assert await process.exit_status() == status


async def test_a_program_that_was_killed_by_a_signal_tells_so(lab: Lab, workload: TaskId) -> None:
    async with opened(lab, workload, "suicide") as process:
        await rest_of(process)
        assert await process.exit_status() == 137


async def test_input_comes_through_byte_for_byte_and_its_end_is_an_end_of_file(
    lab: Lab, workload: TaskId
) -> None:
    sent = bytes(range(256)) * 4096
    async with opened(lab, workload, "cat") as process:

        async def write() -> None:
            for begin in range(0, len(sent), 50_000):
                await process.write(sent[begin : begin + 50_000])
            await process.close_input()

        output, _ = await asyncio.gather(rest_of(process), write())
        assert output[Flow.OUTPUT] == sent
        assert await process.exit_status() == 0


async def test_a_program_that_is_missing_is_named(lab: Lab, workload: TaskId) -> None:
    with pytest.raises(EngineFault, match="the command 'missing' was not found in the image"):
        await lab.engine.processes.open(workload, request(lab, "missing"))


async def test_a_shell_knows_its_terminals_size_and_goes_on_between_lines(lab: Lab, workload: TaskId) -> None:
    is_fake = isinstance(lab, FakeLab)
    ask = b"size\n" if is_fake else b"busybox stty size\n"
    async with opened(lab, workload, rows=31, cols=101) as process:
        await process.write(ask)
        await until_shown(process, b"31 101")
        await process.resize(17, 55)
        await process.write(ask)
        await until_shown(process, b"17 55")
        await process.write(b"exit 7\n")
        await rest_of(process)
        assert await process.exit_status() == 7


async def written_until_held_back(process: Process, most: int) -> int:
    """Return how many bytes went in before a write had to wait."""
    piece, sent = b"x" * 65536, 0
    while sent < most:
        try:
            async with asyncio.timeout(1):
                await process.write(piece)
        except TimeoutError:
            return sent
        sent += len(piece)
    raise AssertionError(f"{sent} bytes were taken though nobody reads")


async def test_who_does_not_read_holds_the_process_and_its_writer_back(lab: Lab, workload: TaskId) -> None:
    async with opened(lab, workload, "cat") as process:
        sent = await written_until_held_back(process, 16 << 20)
        received = 0
        while received < sent:
            read = await process.read()
            assert read is not None
            received += len(read[1])


async def test_a_workload_that_ends_takes_its_processes_with_it(lab: Lab, workload: TaskId) -> None:
    async with opened(lab, workload, "sleep", "500") as process:
        await lab.engine.stop(workload, 1, 0.1)
        assert await process.read() is None
        with pytest.raises(Conflict, match="workload has ended"):
            await process.exit_status()
        with pytest.raises(Unavailable):
            await process.write(b"late")


async def test_closing_ends_the_process_and_may_be_repeated(lab: Lab, workload: TaskId) -> None:
    async with opened(lab, workload, "sleep", "500") as process:
        await process.close()
        await process.close()
        with pytest.raises(Unavailable):
            await process.write(b"late")


async def test_a_workload_that_is_not_there_or_does_not_run_is_refused(lab: Lab) -> None:
    with pytest.raises(NotFound):
        await lab.engine.processes.open(fresh_task_id(), request(lab))
    spec = lab.spec(*lab.argv("true"))
    await lab.engine.create(spec, ignore)
    with pytest.raises(Conflict):
        await lab.engine.processes.open(spec.task_id, request(lab))
    await lab.engine.remove(spec.task_id, 0)


async def test_nothing_is_run_in_a_paused_workload(lab: Lab, workload: TaskId) -> None:
    await lab.engine.pause(workload, 1)
    with pytest.raises(Conflict, match="is paused"):
        await lab.engine.processes.open(workload, request(lab))
    await lab.engine.resume(workload, 1)


async def test_a_launched_process_ends_with_the_workload_alone(lab: Lab, workload: TaskId) -> None:
    await lab.engine.processes.launch(workload, request(lab, "cat"))
    await lab.engine.processes.launch(workload, request(lab, "flood", "1000000"))
    await lab.engine.processes.launch(workload, request(lab, "sleep", "600"))
    async with asyncio.timeout(30):
        await lab.engine.stop(workload, 1, 5)


async def test_a_launch_that_cannot_be_is_told(lab: Lab, workload: TaskId) -> None:
    with pytest.raises(EngineFault, match="'missing' was not found"):
        await lab.engine.processes.launch(workload, request(lab, "missing"))
    await lab.engine.pause(workload, 1)
    with pytest.raises(Conflict, match="paused"):
        await lab.engine.processes.launch(workload, request(lab, "cat"))
    await lab.engine.resume(workload, 1)
    await lab.engine.stop(workload, 1, 0)
    with pytest.raises(Conflict, match="does not run"):
        await lab.engine.processes.launch(workload, request(lab, "cat"))
    with pytest.raises(NotFound):
        await lab.engine.processes.launch(fresh_task_id(), request(lab, "cat"))
