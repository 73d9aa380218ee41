"""Runners with the real wire protocol and a fake engine: tasks "run" for a given time and write nothing.

One process plays any number of nodes, so that only the host is measured and the machine keeps its cores for
it. Run as `python -m bench.fake_runner` with a `Play` as the first line of stdin (JSON); later lines are
`{"end": n, "over": seconds}`. It prints `{"ready": …}` once every node beats, `{"done": n, "at": …}`
(monotonic clock) whenever the host has acknowledged ends of tasks, and once a second how its nodes fare.
An unreachable host is asked again after the pauses of real runners; what was not reported is reported then.
"""

import asyncio
import itertools
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.fake_link import FakeLink, HostUnreachable
from bench.playing import UNTIL_TOLD, Play
from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.pauses import HOST_PAUSE_SECONDS, growing_pauses, jittered
from kohakuriver.serving import ApiServer, bind_listener
from kohakuriver.wire.messages import (
    SESSIONS,
    AttemptState,
    GpuInfo,
    Heartbeat,
    NodeFigures,
    Order,
    OrderAnswer,
    Registration,
    RegistrationAnswer,
    TaskReport,
    decode,
    encode,
)
from kohakuriver.wire.trust.identity import Side
from kohakuriver.wire.trust.sealed_calls import NotTaken, Received, receive_call
from kohakuriver.wire.trust.signing import ANSWER_HEADER, read_credential

_JOINING_AT_ONCE = 32
_MEMORY_BYTES = 64 << 30
_REPORTS_PER_REQUEST = 200

Step = tuple[Order, TaskState]


class NobodyWatches(Exception):
    """Who started the play is gone, so it ends."""


@dataclass
class FakeNode:
    """One node of the play."""

    link: FakeLink
    beats: int = 0
    orders_seen: int = 0
    unreachable: bool = False
    session: str = ""
    steps: asyncio.Queue[Step] = field(default_factory=asyncio.Queue)
    held: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.link.name


class FakeRunners:
    """The nodes of one play; `serve` runs until it is cancelled or a node meets an error."""

    def __init__(self, play: Play, tell: Callable[[dict[str, Any]], None]) -> None:
        self._play = play
        self._tell = tell
        self._done = 0
        self._beats_took: list[float] = []
        self._running: deque[tuple[FakeNode, Order]] = deque()
        self._nodes: dict[str, FakeNode] = {}
        for number in range(play.nodes):
            address = f"127.1.{number // 250}.{1 + number % 250}" if play.own_addresses else "127.0.0.1"
            name = f"bench-{number:04d}"
            self._nodes[name] = FakeNode(FakeLink(name, play.host_port, address))

    async def serve(self, commands: asyncio.StreamReader) -> None:
        app = Starlette(routes=[Route("/api/orders", self._orders, methods=["POST"])])
        server = ApiServer(app, 1)
        everywhere = "0.0.0.0" if self._play.own_addresses else "127.0.0.1"
        listener = bind_listener(everywhere, self._play.port, "port")
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listener]))
            await self._join_all()
            for node in self._nodes.values():
                group.create_task(self._report(node))
                group.create_task(self._beat(node))
            group.create_task(self._tick())
            group.create_task(self._obey(commands))
            self._tell({"ready": len(self._nodes)})

    async def _join_all(self) -> None:
        gate = asyncio.Semaphore(_JOINING_AT_ONCE)

        async def join(node: FakeNode) -> None:
            async with gate:
                await node.link.enrol(self._play.token)
                await self._register(node)
                await self._heartbeat(node)

        async with asyncio.TaskGroup() as group:
            for node in self._nodes.values():
                group.create_task(join(node))

    async def _register(self, node: FakeNode) -> None:
        registration = Registration(
            hostname=node.name,
            url=f"http://127.0.0.1:{self._play.port}",
            total_cores=self._play.cores,
            total_ram_bytes=_MEMORY_BYTES,
            gpu_info=self._gpus(node),
            heartbeat_interval_seconds=self._play.beat_seconds,
            shared_cluster_id=node.link.cluster_id,
            boot_id="bench",
            capabilities=[SESSIONS],
        )
        for _ in range(2):
            named = msgspec.structs.replace(registration, session=node.session)
            content = await node.link.send("POST", "/api/register", encode(named))
            answer = decode(content, RegistrationAnswer)
            node.session = answer.session
            if answer.known:
                return
        raise HostUnreachable("another registration of this node came between")

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

    async def _heartbeat(self, node: FakeNode) -> None:
        node.beats += 1
        sample = NodeFigures(
            at=datetime.now(UTC),
            cpu_percent=12.5,
            memory_percent=25.0,
            memory_used_bytes=_MEMORY_BYTES // 4,
            memory_total_bytes=_MEMORY_BYTES,
        )
        beat = Heartbeat(
            revision=node.beats,
            boot_id="bench",
            session=node.session,
            orders_seen=node.orders_seen,
            cpu_percent=12.5,
            memory_percent=25.0,
            memory_used_bytes=_MEMORY_BYTES // 4,
            memory_total_bytes=_MEMORY_BYTES,
            gpu_info=self._gpus(node),
            history=[sample] * min(60, int(self._play.beat_seconds)),
            attempts=[
                AttemptState(task_id=task_id, attempt=attempt, status=TaskState.RUNNING, revision=0)
                for task_id, attempt in node.held.items()
            ],
        )
        body = encode(beat)
        began = time.perf_counter()
        answer = await node.link.send("PUT", f"/api/heartbeat/{node.name}", body)
        self._beats_took.append(time.perf_counter() - began)
        if b'"known":false' in answer:
            await self._register(node)

    async def _beat(self, node: FakeNode) -> None:
        # Runners start at different moments, so their beats are spread over the interval.
        await asyncio.sleep(jittered(self._play.beat_seconds / 2, 1.0))
        pauses = growing_pauses(1.0, HOST_PAUSE_SECONDS)
        while True:
            try:
                await self._heartbeat(node)
            except HostUnreachable:
                node.unreachable = True
                await asyncio.sleep(next(pauses))
            else:
                node.unreachable, pauses = False, growing_pauses(1.0, HOST_PAUSE_SECONDS)
                await asyncio.sleep(jittered(self._play.beat_seconds))

    async def _orders(self, request: Request) -> Response:
        credential = read_credential(request.headers["Authorization"])
        node = self._nodes[credential.node]
        call = receive_call(Side.NODE, node.link.keys, credential, "POST", "/api/orders")
        try:
            call.take(node.link.window, time.monotonic())
        except NotTaken as error:
            return _answer(call, b"", error.http_status, error.headers)
        body = call.open(await credential.body.read(request.stream()))
        orders = decode(body, list[Order])
        for order in orders:
            if order.order_id <= node.orders_seen:
                continue
            node.orders_seen = order.order_id
            if order.kind is OrderKind.EXECUTE:
                node.held[str(order.task_id)] = order.attempt
                node.steps.put_nowait((order, TaskState.RUNNING))
        content = encode([OrderAnswer(order_id=order.order_id, accepted=True) for order in orders])
        return _answer(call, content)

    async def _report(self, node: FakeNode) -> None:
        """Report each step of each task, in batches as a busy runner does."""
        while True:
            batch = [await node.steps.get()]
            while not node.steps.empty() and len(batch) < _REPORTS_PER_REQUEST:
                batch.append(node.steps.get_nowait())
            await self._deliver(node, encode([_report_of(*step) for step in batch]))
            ended = [order for order, state in batch if state is TaskState.COMPLETED]
            for order, state in batch:
                if state is TaskState.RUNNING:
                    self._start(node, order)
            for order in ended:
                node.held.pop(str(order.task_id), None)
            if ended:
                self._done += len(ended)
                self._tell({"done": self._done, "at": time.monotonic()})

    async def _deliver(self, node: FakeNode, body: bytes) -> None:
        pauses = growing_pauses()
        while True:
            try:
                await node.link.send("POST", "/api/updates", body)
            except HostUnreachable:
                await asyncio.sleep(next(pauses))
            else:
                return

    def _start(self, node: FakeNode, order: Order) -> None:
        ends = order, TaskState.COMPLETED
        if self._play.task_seconds == UNTIL_TOLD:
            self._running.append((node, order))
        elif self._play.task_seconds == 0:
            node.steps.put_nowait(ends)
        else:
            asyncio.get_running_loop().call_later(self._play.task_seconds, node.steps.put_nowait, ends)

    async def _obey(self, commands: asyncio.StreamReader) -> None:
        while line := await commands.readline():
            wanted = json.loads(line)
            for _ in range(wanted["end"]):
                node, order = self._running.popleft()
                node.steps.put_nowait((order, TaskState.COMPLETED))
                await asyncio.sleep(wanted["over"] / wanted["end"])
        raise NobodyWatches

    async def _tick(self) -> None:
        for _ in itertools.count():
            await asyncio.sleep(1)
            took, self._beats_took = self._beats_took, []
            running = sum(len(node.held) for node in self._nodes.values())
            unreachable = sum(node.unreachable for node in self._nodes.values())
            self._tell({"running": running, "away": unreachable, "beats": took, "at": time.monotonic()})


def _answer(
    call: Received, body: bytes, status: int = 200, more: Mapping[str, str] | None = None
) -> Response:
    headers = {"content-type": "application/json", **(more or {})}
    content, proof = call.seal(status, body, headers)
    return Response(content, status, {**headers, ANSWER_HEADER: proof})


def _report_of(order: Order, state: TaskState) -> TaskReport:
    ended = state is TaskState.COMPLETED
    now = datetime.now(UTC)
    return TaskReport(
        task_id=order.task_id,
        attempt=order.attempt,
        revision=2 if ended else 1,
        status=state,
        started_at=now,
        completed_at=now if ended else None,
        exit_code=0 if ended else None,
        stdout_bytes=0 if ended else None,
        stderr_bytes=0 if ended else None,
    )


async def _main() -> None:
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    play = Play(**json.loads(await commands.readline()))
    try:
        await FakeRunners(play, lambda line: print(json.dumps(line), flush=True)).serve(commands)
    except* NobodyWatches:
        sys.exit(0)


if __name__ == "__main__":
    uvloop.run(_main())
