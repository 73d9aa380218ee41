"""Terminals into environment containers."""

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from kohakuriver.dockerapi.exec_stream import ExecStream
from kohakuriver.host.environments.service import EnvironmentService
from kohakuriver.models.errors import (
    Conflict,
)
from support.environment_probes import wait_until

pytest_plugins = ["support.environment_fixtures"]
pytestmark = [pytest.mark.anyio, pytest.mark.docker]


async def test_a_terminal_takes_input_knows_its_size_and_gives_the_exit_status(
    service: EnvironmentService, environment: str, container: str
) -> None:
    async with aclosing(_closing(await service.open_terminal(environment, 31, 101))) as opened:
        terminal = await anext(opened)
        await terminal.write(b"stty size\n")
        assert b"31 101" in await _read_until(terminal, b"31 101")
        await terminal.resize(17, 55)
        await terminal.write(b"stty size; exit 7\n")
        assert b"17 55" in await _read_to_end(terminal)
        assert await terminal.exit_status() == 7


async def test_a_terminal_carries_a_lot_of_output_whole(
    service: EnvironmentService, environment: str, container: str
) -> None:
    async with aclosing(_closing(await service.open_terminal(environment, 24, 80))) as opened:
        terminal = await anext(opened)
        await terminal.write(b"i=0; while [ $i -lt 20000 ]; do echo line-$i; i=$((i+1)); done; exit\n")
        output = await _read_to_end(terminal)
        assert [f"line-{number}".encode() in output for number in (0, 9999, 19999)] == [True] * 3
        assert output.count(b"\r\nline-") == 20000


@pytest.mark.skipif(os.geteuid() != 0, reason="signalling a container's process needs root")
async def test_closing_a_terminal_ends_its_shell(
    service: EnvironmentService, environment: str, container: str
) -> None:
    terminal = await service.open_terminal(environment, 24, 80)
    await terminal.write(b"echo rea''dy; sleep 4321\n")
    await _read_until(terminal, b"ready")
    await terminal.close()
    await terminal.close()
    await wait_until(lambda: "4321" not in _processes(container))


@pytest.mark.skipif(os.geteuid() != 0, reason="seeing a container's process needs root")
async def test_output_that_nobody_reads_does_not_keep_a_container_from_being_stopped(
    service: EnvironmentService, environment: str, container: str
) -> None:
    async with aclosing(_closing(await service.open_terminal(environment, 24, 80))) as opened:
        terminal = await anext(opened)
        await terminal.write(b"while :; do echo 0123456789012345678901234567890123456789; done\n")
        written: list[int] = []

        def is_held_back() -> bool:
            written.append(_written(container, " -l"))
            return written[-1] > 100_000 and written[-10:] == [written[-1]] * 10

        await wait_until(is_held_back)
        async with asyncio.timeout(30):
            await service.stop_container(environment)
        assert not _runs(container)


async def test_a_stopped_container_has_no_terminal(
    service: EnvironmentService, environment: str, container: str
) -> None:
    await service.stop_container(environment)
    with pytest.raises(Conflict, match="start it first"):
        await service.open_terminal(environment, 24, 80)


async def _closing(terminal: ExecStream) -> AsyncGenerator[ExecStream, None]:
    try:
        yield terminal
    finally:
        await terminal.close()


async def _read_until(terminal: ExecStream, wanted: bytes) -> bytes:
    output = b""
    async with asyncio.timeout(20):
        while wanted not in output and (piece := await terminal.read()) is not None:
            output += piece[1]
    return output


async def _read_to_end(terminal: ExecStream) -> bytes:
    return await _read_until(terminal, b"what no shell ever says")


def _processes(container: str) -> str:
    return subprocess.run(["docker", "top", container], check=True, capture_output=True, text=True).stdout


def _written(container: str, command: str) -> int:
    """Bytes that it has written so far; 0 if it does not run."""
    found = [line.split()[1] for line in _processes(container).splitlines() if line.endswith(command)]
    if not found:
        return 0
    return int(Path(f"/proc/{found[0]}/io").read_text().split("wchar: ")[1].split()[0])


def _runs(container: str) -> bool:
    said = ["docker", "inspect", "--format", "{{.State.Running}}", container]
    return subprocess.run(said, check=True, capture_output=True, text=True).stdout.strip() == "true"
