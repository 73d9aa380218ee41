"""Looks again and again for nodes that have gone silent, for orders that did not get through, and for runners
that wait for approval and ask no more."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import structlog

from kohakuriver.host.control.loop import ControlLoop
from kohakuriver.host.control.nodes import enrolling, heartbeats, reach
from kohakuriver.host.control.nodes.node import LiveNode
from kohakuriver.host.control.nodes.pending_runners import PendingRunners
from kohakuriver.host.control.turn import Turn
from kohakuriver.models.errors import KohakuRiverError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """`interval_seconds`: of the heartbeats of a node that announced none."""

    check_seconds: float
    interval_seconds: float
    timeout_factor: int


class NodeWatch:
    """Run it once with `run`. A node has so many of its own heartbeats' time before something follows."""

    def __init__(self, loop: ControlLoop, waiting: PendingRunners, settings: WatchSettings) -> None:
        self._loop = loop
        self._waiting = waiting
        self._settings = settings

    async def run(self) -> None:
        """Ends by cancellation only."""
        began = self._loop.clock.monotonic()
        while True:
            await asyncio.sleep(self._settings.check_seconds)
            await self._follow_up(began)
            await self._let_go()

    async def _follow_up(self, began: float) -> None:
        nodes = self._loop.state.nodes
        silent = [name for name, node in nodes.items() if self._is_silent(node, began)]
        unreached = [name for name, node in nodes.items() if self._is_given_up(node)]
        if not (silent or unreached) or self._loop.watch.fault:
            return
        try:
            await self._loop.call(partial(_take_note, silent=silent, unreached=unreached))
        except KohakuRiverError as error:
            log.warning("silence_not_recorded", nodes=silent + unreached, reason=str(error))

    async def _let_go(self) -> None:
        """Let go of runners that wait and ask no more."""
        waiting = self._loop.state.enrolments.values()
        self._waiting.keep_only(waiting)
        silent = self._waiting.gone_silent(waiting)
        if not silent or self._loop.watch.fault:
            return
        try:
            await self._loop.call(partial(enrolling.end_waiting, fingerprints=silent))
            log.info("waiting_nodes_forgotten", count=len(silent))
        except KohakuRiverError as error:
            log.warning("waiting_nodes_not_forgotten", reason=str(error))

    def _is_silent(self, node: LiveNode, began: float) -> bool:
        """Silence counts from the last beat or registration, or from when this host began to listen."""
        if not (node.online or self._loop.state.has_work_said_to_run(node.row.hostname)):
            return False
        since = max(began, self._loop.listening_since, node.last_beat or began)
        return self._is_over(node, since)

    def _is_given_up(self, node: LiveNode) -> bool:
        """Whether orders to it have not got through for so long that others are to have the work."""
        waiting = self._loop.state.orders.of_node(node.row.hostname, 1)
        return (
            bool(waiting) and node.unreached_since is not None and self._is_over(node, node.unreached_since)
        )

    def _is_over(self, node: LiveNode, since: float) -> bool:
        told = node.registration.heartbeat_interval_seconds if node.registration else None
        interval = told or self._settings.interval_seconds
        return self._loop.clock.monotonic() - since > interval * self._settings.timeout_factor


def _take_note(turn: Turn, silent: Iterable[str], unreached: Iterable[str]) -> None:
    for name in set(silent).intersection(turn.state.nodes):
        heartbeats.node_silent(turn, name)
    for name in set(unreached).intersection(turn.state.nodes):
        reach.take_back(turn, name)
