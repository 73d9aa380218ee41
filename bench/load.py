"""A lean HTTP load generator: a closed loop over keep-alive connections, in a process of its own.

It sends prepared bytes and reads no more of an answer than its status and length, so that on two cores the
host is measured and not the generator. Run as `python -m bench.load`, with a `Load` as JSON on stdin; it
prints an `Outcome` as JSON. `run_load` does both.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass

import uvloop

from bench.measuring import ROOT, summary


@dataclass(frozen=True)
class Load:
    """`count` equal requests over `connections`; `rate` above 0 starts no more than that many a second."""

    port: int
    method: str
    path: str
    token: str
    count: int
    connections: int
    body: str = ""
    rate: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """`began` and `ended` are on the machine's monotonic clock, which all processes share."""

    began: float
    ended: float
    statuses: dict[str, int]
    latency: dict[str, float]
    answer_bytes: int

    @property
    def rate(self) -> float:
        return sum(self.statuses.values()) / (self.ended - self.began)


class _Client(asyncio.Protocol):
    """One connection, one request under way at a time."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[tuple[str, int]] | None = None
        self.transport: asyncio.WriteTransport | None = None
        self._head = b""
        self._left = -1
        self._status = ""
        self._length = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._head[:end].lower()
            self._status = head[9:12].decode()
            at = head.index(b"content-length:") + 15
            self._length = int(head[at:].split(b"\r\n", 1)[0])
            self._left = self._length - (len(self._head) - end - 4)
            self._head = b""
        else:
            self._left -= len(data)
        if self._left == 0 and self.answered is not None:
            self._left = -1
            self.answered.set_result((self._status, self._length))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.answered is not None and not self.answered.done():
            self.answered.set_exception(exc or ConnectionError("the host closed the connection"))

    async def ask(self, request: bytes) -> tuple[str, int]:
        self.answered = asyncio.get_running_loop().create_future()
        assert self.transport is not None
        self.transport.write(request)
        return await self.answered


async def generate(load: Load) -> Outcome:
    """Put the load on; returns when the last answer is in."""
    request = (
        f"{load.method} {load.path} HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\n"
        f"Authorization: Bearer {load.token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(load.body)}\r\n\r\n{load.body}"
    ).encode()
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(_Client, "127.0.0.1", load.port))[1] for _ in range(load.connections)
    ]
    seconds: list[float] = []
    statuses: Counter[str] = Counter()
    sizes: list[int] = []
    numbers = iter(range(load.count))
    began = time.monotonic()

    async def drive(client: _Client) -> None:
        for number in numbers:
            if load.rate:
                await asyncio.sleep(began + number / load.rate - time.monotonic())
            start = time.perf_counter()
            status, size = await client.ask(request)
            seconds.append(time.perf_counter() - start)
            statuses[status] += 1
            sizes.append(size)

    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(drive(client))
    ended = time.monotonic()
    for client in clients:
        assert client.transport is not None
        client.transport.close()
    return Outcome(began, ended, dict(statuses), summary(seconds), max(sizes))


def start_load(load: Load) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.load"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(load)).encode())
    process.stdin.close()
    return process


def finish_load(process: "subprocess.Popen[bytes]", seconds: float = 600) -> Outcome:
    assert process.stdout is not None
    told = process.stdout.read()
    if process.wait(seconds) != 0:
        raise RuntimeError("the load generator failed; see above")
    return Outcome(**json.loads(told))


def run_load(load: Load) -> Outcome:
    """Put the load on from a process of its own; raises RuntimeError if an answer is not a success."""
    outcome = finish_load(start_load(load))
    if any(not status.startswith("2") for status in outcome.statuses):
        raise RuntimeError(f"{load.method} {load.path} answered {outcome.statuses}")
    return outcome


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(generate(Load(**json.loads(sys.stdin.read())))))))
