"""What only the real engine can show of processes inside workloads."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.models.enums import Flow
from kohakuriver.models.errors import EngineFault
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.processes import ExecRequest, Process
from kohakuriver.runner.engines.contract.spec import ImageChoice
from support.engines.labs import DockerLab, docker_lab, ignore, until
from support.engines.process_output import until_shown

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]


@pytest.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path_factory.mktemp("engine")) as real:
        yield real


@pytest.fixture
async def workload(lab: DockerLab) -> AsyncIterator[TaskId]:
    spec = lab.spec("/bin/sleep", "600", env=(("GREETING", "hello"),))
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    yield spec.task_id
    await lab.engine.remove(spec.task_id, 0)


@asynccontextmanager
async def opened(lab: DockerLab, task_id: TaskId, *argv: str, **changes: Any) -> AsyncIterator[Process]:
    process = await lab.engine.processes.open(task_id, ExecRequest(argv, **changes))
    try:
        async with asyncio.timeout(60):
            yield process
    finally:
        await process.close()


async def output_of(process: Process) -> bytes:
    output = b""
    while (piece := await process.read()) is not None:
        assert piece[0] is Flow.OUTPUT, piece
        output += piece[1]
    return output


async def test_a_megabyte_pasted_into_a_terminal_arrives_byte_for_byte(
    lab: DockerLab, workload: TaskId
) -> None:
    line = b"0123456789abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ\n"
    pasted = line * ((1 << 20) // len(line))
    async with opened(lab, workload, rows=24, cols=80) as shell:
        take = b"busybox stty -echo; echo rea''dy; cat > /pasted; busybox sha256sum /pasted\n"
        await shell.write(take)
        await until_shown(shell, b"ready")

        async def paste() -> None:
            await shell.write(pasted)
            await shell.close_input()

        wanted = hashlib.sha256(pasted).hexdigest().encode()
        await asyncio.gather(paste(), until_shown(shell, wanted))


async def test_binary_output_arrives_exactly(lab: DockerLab, workload: TaskId) -> None:
    async with opened(lab, workload, "/bin/cat", "/bin/busybox") as process:
        output = await output_of(process)
        assert await process.exit_status() == 0
    async with opened(lab, workload, "/bin/busybox", "sha256sum", "/bin/busybox") as process:
        told = (await output_of(process)).split()[0].decode()
    assert hashlib.sha256(output).hexdigest() == told


async def test_ctrl_c_ends_what_runs_in_a_terminal_and_leaves_the_shell(
    lab: DockerLab, workload: TaskId
) -> None:
    async with opened(lab, workload, rows=24, cols=80) as shell:
        # It says so itself, as only what has the terminal already is sure to get the signal.
        await shell.write(b"sh -c 'echo star\"\"ted; exec sleep 400'\n")
        await until_shown(shell, b"started")
        await shell.write(b"\x03")
        await shell.write(b"echo st''ill here\n")
        await until_shown(shell, b"still here")


async def test_a_shell_is_a_login_shell_with_a_known_terminal(lab: DockerLab, workload: TaskId) -> None:
    async with opened(lab, workload, rows=24, cols=80) as shell:
        await shell.write(b"echo \"<$TERM $GREETING $(echo $-)>\"; cat /proc/$$/cmdline | tr '\\0' ' '\n")
        shown = await until_shown(shell, b" -l")
        assert b"<xterm-256color hello" in shown


async def test_words_of_a_command_are_no_shells_business(lab: DockerLab, workload: TaskId) -> None:
    async with opened(lab, workload, "/bin/echo", "$HOME", "a  b", "; id", "*") as process:
        assert await output_of(process) == b"$HOME a  b ; id *\n"


async def test_user_folder_and_variables_are_as_asked_for(lab: DockerLab, workload: TaskId) -> None:
    script = 'echo "$(id -u):$(id -g) $(pwd) $WORD"'
    async with opened(
        lab, workload, "/bin/sh", "-c", script, env=(("WORD", "a=b c"),), user="7:8", working_dir="/bin"
    ) as process:
        assert await output_of(process) == b"7:8 /bin a=b c\n"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"user": "hugo"}, "knows no user 'hugo'"),
        ({"working_dir": "/bin/busybox"}, "working directory '/bin/busybox' cannot be used"),
    ],
)
async def test_what_cannot_be_started_says_why(
    lab: DockerLab, workload: TaskId, changes: dict[str, str], sentence: str
) -> None:
    with pytest.raises(EngineFault, match=sentence):
        await lab.engine.processes.open(workload, ExecRequest(("/bin/true",), **changes))  # type: ignore[arg-type]


async def test_an_image_without_a_shell_says_so(lab: DockerLab) -> None:
    spec = lab.spec("/sleep", "600", image=ImageChoice(registry_image="bare"))
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    try:
        with pytest.raises(EngineFault, match="holds no shell"):
            await lab.engine.processes.open(spec.task_id, ExecRequest(rows=24, cols=80))
    finally:
        await lab.engine.remove(spec.task_id, 0)


@pytest.mark.parametrize("script", ["sleep 4321", "trap '' HUP; while :; do sleep 4321; done"])
@pytest.mark.parametrize("rows", [0, 24])
async def test_closing_hangs_up_also_what_does_not_want_to_go(
    lab: DockerLab, workload: TaskId, script: str, rows: int
) -> None:
    process = await lab.engine.processes.open(
        workload, ExecRequest(("/bin/sh", "-c", f"echo ready; {script}"), rows=rows, cols=80)
    )
    await until_shown(process, b"ready")
    await process.close()

    async def is_gone() -> bool:
        async with opened(lab, workload, "/bin/ps") as look:
            return b"4321" not in await output_of(look)

    await until(is_gone)


async def test_a_process_that_nobody_reads_costs_no_memory(lab: DockerLab, workload: TaskId) -> None:
    before = resident_bytes()
    async with opened(lab, workload, "/bin/head", "-c", "200000000", "/dev/zero") as process:
        assert await process.read() is not None
        with pytest.raises(TimeoutError):  # it cannot end, because it is held back
            async with asyncio.timeout(1):
                await process.exit_status()
        assert resident_bytes() - before < 32 << 20


@pytest.mark.parametrize("size", ["1000000", "200000000"])
@pytest.mark.parametrize("rows", [0, 24])
async def test_output_that_nobody_reads_does_not_hide_the_end_of_the_workload(
    lab: DockerLab, size: str, rows: int
) -> None:
    """An engine reports no end before all output was taken; a client may be halted, or gone."""
    spec = lab.spec("/bin/sh", "-c", "while [ ! -e /end ]; do sleep 0.05; done; exit 3")
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    argv = ("/bin/sh", "-c", f"head -c {size} /dev/zero & sleep 0.5; touch /end; sleep 600")
    async with opened(lab, spec.task_id, *argv, rows=rows, cols=80) as process:
        async with asyncio.timeout(20):
            assert (await lab.engine.wait(spec)).exit_code == 3
        taken = 0
        while (piece := await process.read()) is not None:
            taken += len(piece[1])
        assert taken > 50_000, "what was under way is there for who reads it later"
    await lab.engine.remove(spec.task_id, 1)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
