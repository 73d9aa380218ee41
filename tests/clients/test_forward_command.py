"""`forward` as a process of its own, over host and runner to the fake engine."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.clients.command_line import CommandLine
from support.cluster.tunnel_path import OWNER, TunnelPath, tunnel_path
from support.host.api import HOST_IDENTITY

pytestmark = pytest.mark.anyio

SECONDS = 60


class Running:
    """The command, while it runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.out = process.stdout
        self.err = process.stderr

    async def line(self) -> str:
        return (await self.out.readline()).decode().rstrip("\n")

    async def port(self) -> int:
        return int((await self.line()).split(" ")[0].rpartition(":")[2])

    async def interrupt(self) -> tuple[int, str]:
        """Press Ctrl-C; return its status and what it says on standard error."""
        self.process.send_signal(signal.SIGINT)
        said = (await self.err.read()).decode()
        return await self.process.wait(), said


@contextlib.asynccontextmanager
async def upper_at(path: TunnelPath, port: int) -> AsyncIterator[None]:
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data.upper())
        writer.close()

    async with await asyncio.start_server(upper, "127.0.0.1", 0) as server:
        path.lab.machine.listeners[path.task_id, port] = server.sockets[0].getsockname()
        yield


@contextlib.asynccontextmanager
async def forwarding(
    path: TunnelPath, home: Path, *arguments: str, who: str = OWNER
) -> AsyncIterator[Running]:
    command = CommandLine(home, f"http://{path.address}")
    process = await asyncio.create_subprocess_exec(
        *command.argv("forward", *arguments),
        env=command.environment(
            KOHAKURIVER_TOKEN=path.harness.tokens[who],
            KOHAKURIVER_HOST_FINGERPRINT=HOST_IDENTITY.fingerprint,
        ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Running(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def asked(port: int, question: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(question)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


async def test_it_prints_addresses_reconnects_and_ends_by_ctrl_c(tmp_path: Path) -> None:
    async with asyncio.timeout(SECONDS), tunnel_path(tmp_path) as path, upper_at(path, 8888):
        task = str(path.task_id)
        async with forwarding(
            path, tmp_path, task, "0:8888", "0:9000", "0:5353/udp", "--transfer"
        ) as running:
            lines = [await running.line() for _ in range(3)]
            assert [line.partition(" -> ")[2] for line in lines] == ["8888/tcp", "9000/tcp", "5353/udp"]
            port = int(lines[0].partition(" ")[0].removeprefix("127.0.0.1:"))
            assert await asked(port, b"first") == b"FIRST"
            other = int(lines[1].partition(" ")[0].removeprefix("127.0.0.1:"))
            for _ in range(2):
                with contextlib.suppress(ConnectionError):
                    assert await asked(other, b"anybody?") == b""
            assert b"nothing listens on port 9000" in await running.err.readline()
            path.wire.cut()
            assert b"trying again, Ctrl-C gives up" in await running.err.readline()
            assert b"connected again" in await running.err.readline()
            assert await asked(port, b"second") == b"SECOND"
            status, said = await running.interrupt()
            assert status == 130
            assert "11B received" in said


async def test_a_local_port_can_be_chosen_or_left_open(tmp_path: Path) -> None:
    async with asyncio.timeout(SECONDS), tunnel_path(tmp_path) as path, upper_at(path, 8888):
        task = str(path.task_id)[-8:]
        async with forwarding(path, tmp_path, task, "8888", "--local-port", "0") as running:
            port = await running.port()
            assert await asked(port, b"a") == b"A"


async def test_a_place_that_cannot_be_used_here_is_named_with_what_to_do(tmp_path: Path) -> None:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with udp, socket.create_server(("127.0.0.1", 0)) as tcp:
        udp.bind(("127.0.0.1", 0))
        taken = [f"{tcp.getsockname()[1]}:80", f"{udp.getsockname()[1]}:80/udp"]
        async with asyncio.timeout(SECONDS), tunnel_path(tmp_path) as path:
            for port in taken:
                async with forwarding(path, tmp_path, str(path.task_id), port) as running:
                    assert b"address already in use; write 0:80" in await running.err.read()
                    assert await running.process.wait() == 2
            elsewhere = ("0:80", "--local-host", "203.0.113.9")
            async with forwarding(path, tmp_path, str(path.task_id), *elsewhere) as running:
                assert b"address; --local-host has to be" in await running.err.read()


@pytest.mark.parametrize(
    ("arguments", "who", "status", "said"),
    [
        (("{task}", "http"), OWNER, 2, "is no port to forward"),
        (("{task}", "1", "2", "--local-port", "0"), OWNER, 2, "--local-port is for one PORT"),
        (("{task}",), OWNER, 2, "Missing argument"),
        (("{task}", "0:80"), "ulf", 4, "belongs to somebody else"),
        (("999999999999999999", "0:80"), OWNER, 3, "999999999999999999"),
    ],
)
async def test_what_is_refused_has_a_reason_and_a_status(
    tmp_path: Path, arguments: tuple[str, ...], who: str, status: int, said: str
) -> None:
    async with asyncio.timeout(SECONDS), tunnel_path(tmp_path) as path:
        words = [argument.format(task=path.task_id) for argument in arguments]
        async with forwarding(path, tmp_path, *words, who=who) as running:
            assert await running.process.wait() == status
            assert said in (await running.err.read()).decode()


async def test_it_ends_when_the_workload_is_not_there_any_more(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(SECONDS),
        tunnel_path(tmp_path) as path,
        upper_at(path, 8888),
        forwarding(path, tmp_path, str(path.task_id), "0:8888") as running,
    ):
        assert await asked(await running.port(), b"a") == b"A"
        await path.lab.engine.remove(path.task_id, 0)
        said = (await running.err.read()).decode()
        assert "has ended" in said
        assert await running.process.wait() == 3
