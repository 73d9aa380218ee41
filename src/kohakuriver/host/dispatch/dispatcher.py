"""Orders out: one sender per node, which has one request under way at a time, oldest orders first.

An order leaves the outbox only by the runner's answer. What is not answered is sent again with growing
pauses; a new order or a heartbeat of the node ends the pause.
"""

import asyncio
import random
from collections.abc import Mapping

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.host.control import ClusterControl
from kohakuriver.host.dispatch.runner_link import RunnerLink, dial_url
from kohakuriver.models.errors import KohakuRiverError, Unavailable
from kohakuriver.models.output_places import OutputPlace
from kohakuriver.wire.messages import OrderAnswer, decode, encode

log = structlog.get_logger()

ORDERS_PER_REQUEST = 200
REQUEST_TIMEOUT_SECONDS = 20.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 30.0


class Dispatcher:
    """`run` serves until it is cancelled; `wake` may be called at any time from the same loop."""

    def __init__(self, control: ClusterControl) -> None:
        self._control = control
        self._link = RunnerLink(REQUEST_TIMEOUT_SECONDS)
        self._awake: dict[str, asyncio.Event] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for node in self._control.nodes_with_orders():
                    self.wake(node)
                await asyncio.Event().wait()
        finally:
            self._group = None
            await self._link.close()

    def wake(self, node: str) -> None:
        """Have the node's sender look for orders now."""
        event = self._awake.get(node)
        if event is not None:
            event.set()
        elif self._group is not None:
            self._awake[node] = asyncio.Event()
            self._awake[node].set()
            self._group.create_task(self._send_for(node))

    async def _send_for(self, node: str) -> None:
        event = self._awake[node]
        pause = _FIRST_PAUSE_SECONDS
        while True:
            await event.wait()
            event.clear()
            while orders := self._control.orders_for(node, ORDERS_PER_REQUEST):
                try:
                    await self._deliver(node, encode(orders))
                except KohakuRiverError as error:
                    log.warning("orders_not_delivered", node=node, orders=len(orders), reason=str(error))
                    await self._rest(event, pause)
                    pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                else:
                    pause = _FIRST_PAUSE_SECONDS

    async def _rest(self, event: asyncio.Event, pause: float) -> None:
        try:
            async with asyncio.timeout(pause * random.uniform(0.8, 1.2)):  # noqa: S311 - spreads retries
                await event.wait()
                event.clear()
        except TimeoutError:
            return

    async def _deliver(self, node: str, body: bytes) -> None:
        reach(CrashPoint.HOST_SENDING_ORDERS)
        status, content, _ = await self._request(node, "POST", "/api/orders", body)
        reach(CrashPoint.HOST_ORDERS_DELIVERED)
        if status != 200:
            raise Unavailable(f"the runner answered {status} to orders")
        await self._control.orders_answered(node, decode(content, list[OrderAnswer]))

    async def fetch_log(self, node: str, place: OutputPlace, offset: int, length: int) -> tuple[bytes, int]:
        """Return a piece of an output stream that only its node has, and the stream's size so far."""
        window = f"offset={offset}&length={length}&attempt={place.attempt}"
        path = f"/api/logs/{place.task_id}/{place.stream.value}?{window}"
        status, content, headers = await self._request(node, "GET", path)
        if status == 404:
            return b"", 0
        if status != 200:
            raise Unavailable(f"node {node} cannot give that output now (it answered {status})")
        return content, int(headers.get("X-Log-Size", offset + len(content)))

    async def _request(
        self, node: str, method: str, path: str, body: bytes = b""
    ) -> tuple[int, bytes, Mapping[str, str]]:
        keys, where = self._control.link_keys(node), self._control.dispatch_address(node)
        if keys is None or where is None:
            raise Unavailable(f"node {node} has not registered")
        return await self._link.request(node, keys, method, dial_url(*where) + path, body)
