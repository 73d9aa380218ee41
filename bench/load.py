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

from bench.lean_http import LeanClient, connect, request_bytes
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


async def generate(load: Load) -> Outcome:
    """Put the load on; returns when the last answer is in."""
    headers = {"Authorization": f"Bearer {load.token}"}
    request = request_bytes(load.method, load.path, headers, load.body.encode())
    clients = [await connect(load.port, keep_body=False) for _ in range(load.connections)]
    seconds: list[float] = []
    statuses: Counter[str] = Counter()
    sizes: list[int] = []
    numbers = iter(range(load.count))
    began = time.monotonic()

    async def drive(client: LeanClient) -> None:
        for number in numbers:
            if load.rate:
                await asyncio.sleep(began + number / load.rate - time.monotonic())
            start = time.perf_counter()
            status = await client.ask(request)
            seconds.append(time.perf_counter() - start)
            statuses[status] += 1
            sizes.append(client.length)

    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(drive(client))
    ended = time.monotonic()
    for client in clients:
        client.close()
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
