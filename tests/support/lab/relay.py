"""A relay between a runner and its host that delays, doubles, reorders, replays and swallows messages, and
passes streams (WebSockets) on with the same delay.

It runs beside the runner, in the node's network namespace, and needs no key: a request goes on byte for
byte as it came, so its signature stays valid, and that is the point. What the peers must bear, then, are
genuine messages that come twice, late, out of order, or long after their time.

    python -m support.lab.relay --control FILE  LISTEN=TARGET [LISTEN=TARGET …]      (each `address:port`)

The control file holds a `Disturbance` as JSON and is read again whenever it changes; none: pass on quietly.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import random
import sys
from collections import deque
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NoReturn

import aiohttp
from aiohttp import web
from yarl import URL

from support.lab.stream_relay import End, join

KEPT_REQUESTS = 400
_HOP_HEADERS = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date"})
_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=3)
_MOST_PENDING = 200


@dataclass(frozen=True, slots=True)
class Disturbance:
    """How often what is done, in percent of the messages that pass; delays in milliseconds. Of streams only
    `delay_ms` counts, for each byte in each direction.

    `reorder`: held for up to `late_ms`, while others overtake. `duplicate`: sent twice, the second up to
    `late_ms` later. `replay`: an old message, of any age, is sent again before this one.
    `lose_answer_percent`: of those that are delivered, of which the sender hears nothing.
    """

    delay_ms: int = 0
    reorder_percent: int = 0
    duplicate_percent: int = 0
    replay_percent: int = 0
    lose_answer_percent: int = 0
    late_ms: int = 2000

    @classmethod
    def read(cls, path: Path) -> "Disturbance":
        """Unknown fields are refused, so that a misspelt test does not pass."""
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        """Replace the file in one step: a relay never reads half of it."""
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({field.name: getattr(self, field.name) for field in fields(self)}))
        fresh.replace(path)


@dataclass(frozen=True, slots=True)
class Message:
    """One request as it came."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(slots=True)
class Counts:
    """What was done so far; written beside the control file as `<control>.counts`."""

    passed: int = 0
    delayed: int = 0
    duplicated: int = 0
    replayed: int = 0
    swallowed: int = 0
    streams: int = 0


class Relay:
    """All directions of one node. `serve` runs until it is cancelled."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._read_at = 0
        self._disturbance = Disturbance()
        self._dice = random.Random(str(control))
        self._counts = Counts()
        self._session: aiohttp.ClientSession | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._late: set[asyncio.Task[None]] = set()

    async def serve(self, ways: list[tuple[str, str]]) -> None:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with (
            aiohttp.ClientSession(
                connector=connector, timeout=_TIMEOUT, trust_env=False, auto_decompress=False
            ) as self._session,
            contextlib.AsyncExitStack() as listeners,
            asyncio.TaskGroup() as self._tasks,
        ):
            for listen, target in ways:
                listeners.push_async_callback((await self._listen(listen, target)).cleanup)
            print("relay ready", flush=True)
            await asyncio.Event().wait()

    async def _listen(self, listen: str, target: str) -> web.AppRunner:
        kept: deque[Message] = deque(maxlen=KEPT_REQUESTS)

        async def handle(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                await self._pass_stream(request, target)
            return await self._handle(request, target, kept)

        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=1)
        await runner.setup()
        address, _, port = listen.rpartition(":")
        await web.TCPSite(runner, address, int(port), reuse_address=True).start()
        return runner

    async def _pass_stream(self, request: web.Request, target: str) -> NoReturn:
        """From here on the connection is none of the server's, whose only way out is an error."""
        assert self._tasks is not None
        assert request.transport is not None
        near = End.taken_over(request.transport)
        near.reader.feed_data(_head_of(request))
        await self._tasks.create_task(self._join(near, target))
        raise ConnectionResetError("the stream is over")

    async def _join(self, near: End, target: str) -> None:
        try:
            far = await End.dial(target)
        except OSError:
            near.break_off()
            return
        self._counts.streams += 1
        self._write_counts()
        await join(near, far, lambda: self._now().delay_ms / 1000)

    async def _handle(self, request: web.Request, target: str, kept: deque[Message]) -> web.StreamResponse:
        message = Message(
            request.method, request.raw_path, tuple(request.headers.items()), await request.read()
        )
        now = self._now()
        self._counts.passed += 1
        if self._falls(now.replay_percent) and kept:
            self._counts.replayed += 1
            await self._send(target, self._old(kept))
        if message.method != "GET":
            kept.append(message)
        if self._falls(now.duplicate_percent):
            self._counts.duplicated += 1
            self._send_late(target, message, self._dice.uniform(0, now.late_ms) / 1000)
        pause_ms = now.delay_ms + (
            self._dice.uniform(0, now.late_ms) if self._falls(now.reorder_percent) else 0
        )
        if pause_ms:
            self._counts.delayed += 1
            await asyncio.sleep(pause_ms / 1000)
        answer = await self._send(target, message)
        self._write_counts()
        if answer is None or self._falls(now.lose_answer_percent):
            self._counts.swallowed += 1
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the peer hears nothing")
        status, headers, body = answer
        return web.Response(status=status, headers=headers, body=body)

    def _now(self) -> Disturbance:
        try:
            changed_at = self._control.stat().st_mtime_ns
        except FileNotFoundError:
            return Disturbance()
        if changed_at != self._read_at:
            self._read_at, self._disturbance = changed_at, Disturbance.read(self._control)
        return self._disturbance

    def _falls(self, percent: int) -> bool:
        return self._dice.random() * 100 < percent

    def _old(self, kept: deque[Message]) -> Message:
        """Any that was kept; half of the time of a kind that is rare (a registration among heartbeats)."""
        kinds = {message.path: message for message in kept}
        return self._dice.choice(self._dice.choice([list(kept), list(kinds.values())]))

    def _send_late(self, target: str, message: Message, seconds: float) -> None:
        if len(self._late) >= _MOST_PENDING:
            return

        async def send() -> None:
            await asyncio.sleep(seconds)
            await self._send(target, message)

        assert self._tasks is not None
        task = self._tasks.create_task(send())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _send(self, target: str, message: Message) -> tuple[int, list[tuple[str, str]], bytes] | None:
        """Pass it on; None if the peer cannot be reached."""
        assert self._session is not None
        headers = [pair for pair in message.headers if pair[0].lower() not in _HOP_HEADERS]
        url = URL(f"http://{target}{message.path}", encoded=True)
        try:
            async with self._session.request(
                message.method, url, data=message.body or None, headers=headers, allow_redirects=False
            ) as answer:
                body = await answer.read()
                kept = [pair for pair in answer.headers.items() if pair[0].lower() not in _HOP_HEADERS]
                return answer.status, kept, body
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    def _write_counts(self) -> None:
        counts = {field.name: getattr(self._counts, field.name) for field in fields(self._counts)}
        with contextlib.suppress(OSError):
            draft = Path(f"{self._control}.counts.new")
            draft.write_text(json.dumps(counts))
            draft.replace(f"{self._control}.counts")


def _head_of(request: web.Request) -> bytes:
    """The request as it came, which is one without a body."""
    first = f"{request.method} {request.raw_path} HTTP/1.1".encode("utf-8", "surrogateescape")
    return b"\r\n".join([first, *(b": ".join(pair) for pair in request.raw_headers), b"", b""])


def disturb(control: Path, **changes: int) -> None:
    """Have the relay of that control file do so from now on; nothing given: pass on quietly."""
    replace(Disturbance(), **changes).write(control)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("ways", nargs="+", metavar="LISTEN=TARGET")
    given = parser.parse_args()
    # Swallowing an answer is an error to the server's library, and its purpose here.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    ways = [tuple(way.split("=", 1)) for way in given.ways]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Relay(given.control).serve(ways))
    return 0


if __name__ == "__main__":
    sys.exit(main())
