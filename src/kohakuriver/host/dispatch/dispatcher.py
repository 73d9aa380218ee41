"""Orders out: one sender per node, which has one request under way at a time, kills first, then oldest first.

An order leaves the outbox only by the runner's answer, or because no runner can take it. What is not answered
is sent again with growing pauses; a new order or a heartbeat of the node ends the pause. What goes wrong with
one node, expected or not, is only that node's. A node that has registered is called at once, and one that
had no orders for a while from time to time: whether calls get through is shown on it (`control.nodes.reach`).
"""

import asyncio
from collections.abc import Mapping

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.host.control import RunnerControl
from kohakuriver.host.dispatch.call_times import CallTimes, not_reached_sentence
from kohakuriver.host.dispatch.order_batches import NO_ORDERS, Batch, BatchSize, next_batch
from kohakuriver.host.dispatch.runner_link import RunnerLink, dial_url
from kohakuriver.models.errors import InvalidInput, KohakuRiverError, TooLarge, Unavailable
from kohakuriver.models.numbers import whole_number
from kohakuriver.models.output.places import OutputPlace
from kohakuriver.pauses import growing_pauses, jittered
from kohakuriver.wire.messages import MAX_ORDER_BYTES, OrderAnswer, decode

log = structlog.get_logger()

REQUEST_TIMEOUT_SECONDS = 20.0
_REFUSALS = (400, TooLarge.http_status, InvalidInput.http_status)
"""Statuses with which a runner says that what it was sent can never be."""


class Dispatcher:
    """`run` serves until it is cancelled, and closes `link`; the other methods may be called at any time
    from the same loop.
    """

    def __init__(self, runners: RunnerControl, link: RunnerLink | None = None) -> None:
        self._runners = runners
        self._link = link or RunnerLink(REQUEST_TIMEOUT_SECONDS)
        self._awake: dict[str, asyncio.Event] = {}
        self._calls = CallTimes(runners.is_online)
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for node in self._runners.nodes_with_orders():
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

    def call(self, node: str) -> None:
        """Have the node called now, orders or none, because it has registered."""
        self._calls.ask_for(node)
        self.wake(node)

    async def _send_for(self, node: str) -> None:
        event, size = self._awake[node], BatchSize()
        pauses, fault, said = growing_pauses(jitter=0), "", ""
        while True:
            await event.wait()
            event.clear()
            while True:
                try:
                    if (batch := self._next(node, size)) is None:
                        break
                    await self._send(node, batch, size)
                    self._calls.answered(node)
                    await self._runners.got_through(node)
                    if fault:
                        await self._runners.set_fault(node, "orders", "")
                except KohakuRiverError as error:
                    said = self._say(node, error, said)
                    self._calls.failed(node)
                    await self._show_not_reached(node, error)
                    await self._rest(event, next(pauses))
                except Exception as error:
                    log.exception("sender_failed", node=node)
                    fault = (
                        f"the host cannot give it orders ({type(error).__name__}); the host's log says why"
                    )
                    await self._show(node, fault)
                    # Not to be ended early: what the node says may be what fails.
                    await asyncio.sleep(next(pauses))
                else:
                    pauses, fault, said = growing_pauses(jitter=0), "", ""

    def _say(self, node: str, error: KohakuRiverError, said: str) -> str:
        """Once, and not at each try: a node whose port is closed is tried at each of its heartbeats."""
        if str(error) != said:
            log.warning("orders_not_delivered", node=node, reason=str(error))
        return str(error)

    def _next(self, node: str, size: BatchSize) -> Batch | None:
        """What to send now; without orders a call that is due, which is a batch of none."""
        batch = next_batch(self._runners, node, size)
        if batch is not None or self._runners.dispatch_address(node) is None:
            return batch
        return NO_ORDERS if self._calls.is_due(node) else None

    async def _show_not_reached(self, node: str, error: KohakuRiverError) -> None:
        where = self._runners.dispatch_address(node)
        if where is None:
            return
        try:
            sentence = not_reached_sentence(*where, error)
            await self._runners.not_reached(node, sentence)
        except KohakuRiverError as failed:
            log.warning("fault_not_shown", node=node, reason=str(failed))

    async def _show(self, node: str, fault: str) -> None:
        try:
            await self._runners.set_fault(node, "orders", fault)
        except KohakuRiverError as error:
            log.warning("fault_not_shown", node=node, reason=str(error))

    async def _rest(self, event: asyncio.Event, pause: float) -> None:
        try:
            async with asyncio.timeout(jittered(pause, 0.2)):
                await event.wait()
                event.clear()
        except TimeoutError:
            return

    async def _send(self, node: str, batch: Batch, size: BatchSize) -> None:
        """Have a batch answered. One that is refused is divided, until what is to blame is by itself."""
        if batch.never_arrives:
            sentence = (
                f"the order for this is larger than the {MAX_ORDER_BYTES >> 20} MiB that a runner takes"
            )
            await self._runners.orders_answered(node, batch.refused(sentence))
            return
        try:
            refusal = await self._deliver(node, batch)
        except KohakuRiverError:
            size.shrink(batch)
            raise
        if not refusal:
            size.grow()
        elif len(batch.orders) == 1:
            await self._runners.orders_answered(node, batch.refused(refusal))
        else:
            log.warning("orders_refused", node=node, orders=len(batch.orders), bytes=len(batch.body))
            size.shrink(batch)

    async def _deliver(self, node: str, batch: Batch) -> str:
        """Returns why the runner refuses the request as such; nothing if it was answered."""
        if batch.orders:
            reach(CrashPoint.HOST_SENDING_ORDERS)
        status, content, _ = await self._request(node, "POST", "/api/orders", batch.body)
        if batch.orders:
            reach(CrashPoint.HOST_ORDERS_DELIVERED)
        if status in _REFUSALS and batch.orders:
            return f"the runner of node {node} does not take the order (it answered {status})"
        if status != 200:
            raise Unavailable(f"the runner answered {status} to orders")
        try:
            answers = batch.numbered(decode(content, list[OrderAnswer]))
        except InvalidInput as error:
            raise Unavailable(f"the runner gave an answer to orders that does not fit: {error}") from error
        if answers:
            await self._runners.orders_answered(node, answers)
        return ""

    async def fetch_log(self, node: str, place: OutputPlace, offset: int, length: int) -> tuple[bytes, int]:
        """Return a piece of an output stream that only its node has, and the stream's size so far."""
        window = f"offset={offset}&length={length}&attempt={place.attempt}"
        path = f"/api/logs/{place.task_id}/{place.part.value}?{window}"
        status, content, headers = await self._request(node, "GET", path)
        if status == 404:
            return b"", 0
        if status != 200:
            raise Unavailable(f"node {node} cannot give that output now (it answered {status})")
        size = whole_number(headers.get("X-Log-Size", ""))
        return content[:length], offset + len(content) if size is None else size

    async def _request(
        self, node: str, method: str, path: str, body: bytes = b""
    ) -> tuple[int, bytes, Mapping[str, str]]:
        keys, where = self._runners.link_keys(node), self._runners.dispatch_address(node)
        if keys is None or where is None:
            raise Unavailable(f"node {node} has not registered")
        return await self._link.request(node, keys, method, dial_url(*where) + path, body)
