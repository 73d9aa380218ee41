"""Terminals over the whole way: client, host, runner and engine, each hop a real one."""

import asyncio
import hashlib
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from kohakuriver.models.enums import Flow
from kohakuriver.wire.terminal_frames import (
    SUBPROTOCOL,
    EndOfInput,
    ErrorNews,
    ExitNews,
    ShellNews,
    Start,
    control_frame,
    data_frames,
    read_control,
    read_data,
)
from support.cluster.terminal_path import OWNER, TerminalPath, terminal_path
from support.engines.labs import docker_lab

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]

ROUNDS = 200


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[TerminalPath]:
    async with docker_lab(tmp_path / "engine") as lab, terminal_path(tmp_path, lab) as whole:
        yield whole


def opened(path: TerminalPath, kind: str = "terminal", query: str = "") -> connect:
    headers = path.harness.credential(OWNER)
    url = path.url(kind, query)
    options: Any = {"subprotocols": [SUBPROTOCOL], "compression": None, "proxy": None}
    return connect(url, additional_headers=headers, **options)


async def type_in(client: ClientConnection, data: bytes) -> None:
    for frame in data_frames(Flow.INPUT, data):
        await client.send(frame)


async def until_shown(client: ClientConnection, wanted: bytes) -> bytes:
    shown = b""
    async with asyncio.timeout(60):
        while wanted not in shown:
            message = await client.recv()
            if isinstance(message, bytes):
                shown += read_data(message)[1]
    return shown


async def rest_of(client: ClientConnection) -> tuple[dict[Flow, bytes], object]:
    output = {Flow.OUTPUT: b"", Flow.ERROR: b""}
    last: object = None
    async with asyncio.timeout(60):
        async for message in client:
            if isinstance(message, bytes):
                flow, data = read_data(message)
                output[flow] += data
            else:
                last = read_control(message)
    return output, last


async def test_an_echo_comes_back_over_the_whole_way(path: TerminalPath) -> None:
    async with opened(path, "exec") as client:
        await client.send(control_frame(Start(("/bin/cat",), rows=24, cols=80)))
        await type_in(client, b"warm\n")
        await until_shown(client, b"warm\r\nwarm")
        taken = []
        for number in range(ROUNDS):
            letter = bytes([97 + number % 26])
            begin = time.perf_counter()
            await type_in(client, letter)
            await until_shown(client, letter)
            taken.append(1000 * (time.perf_counter() - begin))
        median = statistics.median(taken)
        print(f"\necho round trip: median {median:.2f} ms, most {max(taken):.2f} ms of {ROUNDS}")


async def test_a_lost_client_comes_back_to_its_shell(path: TerminalPath) -> None:
    async with opened(path, query="?rows=24&cols=80") as client:
        shell = read_control(str(await client.recv()))
        assert isinstance(shell, ShellNews)
        await type_in(client, b"RIVER=deep; echo rea''dy\n")
        await until_shown(client, b"ready")
        path.wire.cut()
    async with opened(path, query=f"?session={shell.session}") as again:
        await until_shown(again, b"ready")
        await type_in(again, b"echo $RIVER water; exit 6\n")
        await until_shown(again, b"deep water")
        assert (await rest_of(again))[1] == ExitNews(6)


async def test_a_megabyte_of_any_bytes_goes_through_a_command_and_back(path: TerminalPath) -> None:
    sent = hashlib.shake_128(b"river").digest(1 << 20)
    async with opened(path, "exec") as client:
        await client.send(control_frame(Start(("/bin/cat",))))

        async def write() -> None:
            await type_in(client, sent)
            await client.send(control_frame(EndOfInput()))

        (output, last), _ = await asyncio.gather(rest_of(client), write())
        assert output == {Flow.OUTPUT: sent, Flow.ERROR: b""}
        assert last == ExitNews(0)


async def test_a_command_that_is_not_there_is_named(path: TerminalPath) -> None:
    async with opened(path, "exec") as client:
        await client.send(control_frame(Start(("missing",))))
        told = (await rest_of(client))[1]
        assert isinstance(told, ErrorNews)
        assert "'missing' was not found in the image" in told.data


async def test_a_workload_that_ends_closes_its_terminals_with_the_reason(path: TerminalPath) -> None:
    async with opened(path) as client:
        await client.recv()
        await path.lab.engine.stop(path.task_id, 1, 0.1)
        told = (await rest_of(client))[1]
        assert isinstance(told, ErrorNews)
        assert "workload has ended" in told.data
