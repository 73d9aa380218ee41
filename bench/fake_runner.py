"""Runners with the real wire protocol and no engine: every task ends as soon as its order arrives.

One process plays any number of nodes, so that the host is measured alone. Run as `python -m
bench.fake_runner` with a `Play` as JSON on stdin. It prints `{"ready": …}` once every node beats, and
`{"done": n, "at": …}` (monotonic clock) whenever the host has acknowledged ends of tasks.
"""

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.measuring import ROOT
from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.serving import ApiServer, bind_listener
from kohakuriver.wire.identity import Identity, LinkKeys, Side
from kohakuriver.wire.messages import (
    AttemptState,
    EnrolRequest,
    GpuInfo,
    Heartbeat,
    NodeFigures,
    Order,
    OrderAnswer,
    Registration,
    TaskReport,
    decode,
    encode,
)
from kohakuriver.wire.signing import ANSWER_HEADER, sign, sign_answer

_JOINING_AT_ONCE = 16
_MEMORY_BYTES = 64 << 30
_REPORTS_PER_REQUEST = 200


@dataclass(frozen=True)
class Play:
    """`nodes` nodes of `cores` cores at `port`, joined to `host_url` with an administrator's token."""

    host_url: str
    token: str
    port: int
    nodes: int
    cores: int = 64
    gpus: int = 0
    beat_seconds: float = 5.0


@dataclass
class FakeNode:
    """One node of the play."""

    name: str
    identity: Identity
    keys: LinkKeys | None = None
    beats: int = 0
    orders_seen: int = 0
    waiting: asyncio.Queue[Order] = field(default_factory=asyncio.Queue)
    held: dict[str, int] = field(default_factory=dict)


class FakeRunners:
    """The nodes of one play; `serve` runs until it is cancelled or a node meets an error."""

    def __init__(self, play: Play, tell: Callable[[dict[str, Any]], None]) -> None:
        self._play = play
        self._tell = tell
        self._done = 0
        names = [f"bench-{number:04d}" for number in range(play.nodes)]
        self._nodes = {name: FakeNode(name, Identity.generate()) for name in names}

    async def serve(self) -> None:
        app = Starlette(routes=[Route("/api/orders", self._orders, methods=["POST"])])
        server = ApiServer(app, 1)
        listener = bind_listener("127.0.0.1", self._play.port, "port")
        connector = aiohttp.TCPConnector(limit=64, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(connector=connector)
        async with self._session, asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listener]))
            await self._join_all()
            for node in self._nodes.values():
                group.create_task(self._report(node))
                group.create_task(self._beat(node))
            self._tell({"ready": len(self._nodes)})

    async def _join_all(self) -> None:
        async with self._session.get(f"{self._play.host_url}/api/enrol") as answer:
            host = await answer.json()
        gate = asyncio.Semaphore(_JOINING_AT_ONCE)

        async def join(node: FakeNode) -> None:
            async with gate:
                await self._join(node, host["host_public_key"], host["cluster_id"])

        async with asyncio.TaskGroup() as group:
            for node in self._nodes.values():
                group.create_task(join(node))

    async def _join(self, node: FakeNode, host_key: str, cluster_id: str) -> None:
        request = EnrolRequest(hostname=node.name, public_key=node.identity.public_key)
        await self._post("/api/enrol", encode(request), {})
        admin = {"Authorization": f"Bearer {self._play.token}"}
        await self._post(f"/api/nodes/{node.name}/approve", b"{}", admin)
        node.keys = node.identity.link_keys(host_key, Side.NODE)
        registration = Registration(
            hostname=node.name,
            url=f"http://127.0.0.1:{self._play.port}",
            total_cores=self._play.cores,
            total_ram_bytes=_MEMORY_BYTES,
            gpu_info=self._gpus(node),
            heartbeat_interval_seconds=self._play.beat_seconds,
            shared_cluster_id=cluster_id,
            boot_id="bench",
        )
        await self._send(node, "POST", "/api/register", encode(registration))
        await self._heartbeat(node)

    def _gpus(self, node: FakeNode) -> list[GpuInfo]:
        return [
            GpuInfo(
                gpu_id=number,
                uuid=f"GPU-{node.name}-{number}",
                name="bench",
                memory_total_bytes=24 << 30,
                gpu_utilization=50.0,
                memory_used_bytes=1 << 30,
            )
            for number in range(self._play.gpus)
        ]

    async def _send(self, node: FakeNode, method: str, path: str, body: bytes) -> bytes:
        assert node.keys is not None
        credential = sign(node.keys.node_to_host, node.name, method, path, body)
        return await self._post(path, body, {"Authorization": credential}, method)

    async def _post(self, path: str, body: bytes, headers: dict[str, str], method: str = "POST") -> bytes:
        whole = {"Content-Type": "application/json", **headers}
        url = self._play.host_url + path
        async with self._session.request(method, url, data=body, headers=whole) as answer:
            content = await answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
            return content

    async def _heartbeat(self, node: FakeNode) -> None:
        node.beats += 1
        now = datetime.now(UTC)
        sample = NodeFigures(
            at=now,
            cpu_percent=12.5,
            memory_percent=25.0,
            memory_used_bytes=_MEMORY_BYTES // 4,
            memory_total_bytes=_MEMORY_BYTES,
        )
        beat = Heartbeat(
            revision=node.beats,
            boot_id="bench",
            orders_seen=node.orders_seen,
            cpu_percent=12.5,
            memory_percent=25.0,
            memory_used_bytes=_MEMORY_BYTES // 4,
            memory_total_bytes=_MEMORY_BYTES,
            gpu_info=self._gpus(node),
            history=[sample] * int(self._play.beat_seconds),
            attempts=[
                AttemptState(task_id=task_id, attempt=attempt, status=TaskState.RUNNING, revision=0)
                for task_id, attempt in node.held.items()
            ],
        )
        await self._send(node, "PUT", f"/api/heartbeat/{node.name}", encode(beat))

    async def _beat(self, node: FakeNode) -> None:
        # Runners start at different moments, so their beats are spread over the interval.
        await asyncio.sleep(random.uniform(0, self._play.beat_seconds))
        while True:
            await self._heartbeat(node)
            await asyncio.sleep(self._play.beat_seconds)

    async def _orders(self, request: Request) -> Response:
        body = await request.body()
        credential = request.headers["Authorization"]
        node = self._nodes[credential.split(" ", 1)[1].split(":", 1)[0]]
        assert node.keys is not None
        orders = decode(body, list[Order])
        for order in orders:
            if order.order_id <= node.orders_seen:
                continue
            node.orders_seen = order.order_id
            if order.kind is OrderKind.EXECUTE:
                node.held[str(order.task_id)] = order.attempt
                node.waiting.put_nowait(order)
        content = encode([OrderAnswer(order_id=order.order_id, accepted=True) for order in orders])
        proof = sign_answer(node.keys.node_to_host, credential, 200, content)
        return Response(content, headers={ANSWER_HEADER: proof}, media_type="application/json")

    async def _report(self, node: FakeNode) -> None:
        """Report each task as running, then as completed, in batches as a busy runner does."""
        while True:
            batch = [await node.waiting.get()]
            while not node.waiting.empty() and len(batch) < _REPORTS_PER_REQUEST:
                batch.append(node.waiting.get_nowait())
            for revision, state in ((1, TaskState.RUNNING), (2, TaskState.COMPLETED)):
                now = datetime.now(UTC)
                reports = [_report_of(order, revision, state, now) for order in batch]
                await self._send(node, "POST", "/api/updates", encode(reports))
            for order in batch:
                node.held.pop(str(order.task_id), None)
            self._done += len(batch)
            self._tell({"done": self._done, "at": time.monotonic()})


def _report_of(order: Order, revision: int, state: TaskState, now: datetime) -> TaskReport:
    ended = state is TaskState.COMPLETED
    return TaskReport(
        task_id=order.task_id,
        attempt=order.attempt,
        revision=revision,
        status=state,
        started_at=now,
        completed_at=now if ended else None,
        exit_code=0 if ended else None,
        stdout_bytes=0 if ended else None,
        stderr_bytes=0 if ended else None,
    )


class Playing:
    """A play that runs in another process. `pid` is that process."""

    def __init__(self, play: Play) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.fake_runner"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self._process.pid
        self._news = threading.Condition()
        self._ready = False
        self._done: list[tuple[int, float]] = []
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(play)).encode())
        self._process.stdin.close()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            with self._news:
                self._ready = self._ready or "ready" in told
                if "done" in told:
                    self._done.append((told["done"], told["at"]))
                self._news.notify_all()

    def await_ready(self, seconds: float = 120) -> None:
        self._wait(lambda: self._ready, seconds, "the fake runners have not joined")

    def await_done(self, count: int, seconds: float = 300) -> float:
        """Wait until so many tasks were acknowledged as ended since the start; returns when that was."""
        self._wait(lambda: bool(self._done) and self._done[-1][0] >= count, seconds, "tasks have not ended")
        return next(at for done, at in self._done if done >= count)

    def _wait(self, condition: Callable[[], bool], seconds: float, fault: str) -> None:
        deadline = time.monotonic() + seconds
        with self._news:
            while not condition():
                self._news.wait(0.5)
                if self._process.poll() is not None:
                    raise RuntimeError(f"{fault}: they failed, see above")
                if time.monotonic() > deadline:
                    done = self._done[-1][0] if self._done else 0
                    raise TimeoutError(f"{fault} ({done} ends so far)")

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._reader.join()


@contextlib.contextmanager
def playing(play: Play) -> Iterator[Playing]:
    """Fake runners that have joined; ended at the end."""
    played = Playing(play)
    try:
        played.await_ready()
        yield played
    finally:
        played.end()


def _tell(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    uvloop.run(FakeRunners(Play(**json.loads(sys.stdin.read())), _tell).serve())
