"""Clients that follow events and output, in a process of their own that reads and counts and nothing else.

Run as `python -m bench.scale.followers` with a `Following` as JSON on stdin, which is then kept open: at its
end the process prints what each kind of follower has got, as JSON.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import uvloop

from bench.lean_http import request_bytes
from bench.measuring import ROOT

_SETTLE_TRIES = 100
"""Looks at whether what is under way has reached all, at the end."""


@dataclass(frozen=True)
class Following:
    """`events` followers of the events and `output` followers of one task's standard output."""

    port: int
    token: str
    events: int
    output: int
    task_id: str


@dataclass(frozen=True)
class Followed:
    """What the followers got since they were ready: bytes of answers, fewest and most; streams that ended."""

    event_bytes: tuple[int, int]
    output_bytes: tuple[int, int]
    ended: int


class _Follower(asyncio.Protocol):
    def __init__(self) -> None:
        self.received = 0
        self.answered = asyncio.get_running_loop().create_future()
        self.ended = False

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if not self.answered.done():
            self.answered.set_result(data[9:12])

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        if not self.answered.done():
            self.answered.set_exception(exc or ConnectionError("the host closed the connection"))


async def _open(port: int, path: str, token: str) -> _Follower:
    loop = asyncio.get_running_loop()
    transport, follower = await loop.create_connection(_Follower, "127.0.0.1", port)
    transport.write(request_bytes("GET", path, {"Authorization": f"Bearer {token}"}))
    async with asyncio.timeout(60):
        status = await follower.answered
    if status != b"200":
        raise RuntimeError(f"GET {path}: {status!r}")
    return follower


async def follow(wanted: Following, commands: asyncio.StreamReader) -> Followed:
    path = f"/api/tasks/{wanted.task_id}/stdout?follow=true"
    events = [await _open(wanted.port, "/api/events", wanted.token) for _ in range(wanted.events)]
    output = [await _open(wanted.port, path, wanted.token) for _ in range(wanted.output)]
    print(json.dumps({"ready": True}), flush=True)
    before = [(one, one.received) for one in (*events, *output)]
    await commands.read()
    for _ in range(_SETTLE_TRIES):
        got = [one.received - earlier for one, earlier in before]
        spans = _extremes(got[: len(events)]), _extremes(got[len(events) :])
        if all(fewest == most for fewest, most in spans):
            break
        await asyncio.sleep(0.05)
    return Followed(*spans, sum(one.ended for one, _ in before))


def _extremes(numbers: list[int]) -> tuple[int, int]:
    return min(numbers, default=0), max(numbers, default=0)


class Followers:
    """The followers of another process; `finish` ends them and returns what they got."""

    def __init__(self, following: Following) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.scale.followers"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self._process.pid
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(following)).encode() + b"\n")
        self._process.stdin.flush()
        if b"ready" not in self._process.stdout.readline():
            raise RuntimeError("the followers could not follow; see above")

    def finish(self) -> Followed:
        told, _ = self._process.communicate(timeout=60)
        return Followed(**json.loads(told))

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(20)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def followers(following: Following) -> Iterator[Followers]:
    there = Followers(following)
    try:
        yield there
    finally:
        there.end()


async def _main() -> None:
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    wanted = Following(**json.loads(await commands.readline()))
    print(json.dumps(asdict(await follow(wanted, commands))), flush=True)


if __name__ == "__main__":
    uvloop.run(_main())
