"""How runners come in, as calls: first contact, and an administrator's word on those that wait.

Anybody can ask. Who waits already, and tokens that are none, are answered here, so that asking again and
again costs the control loop nothing; the rest, but for good tokens, is bounded by address and in all.
"""

import asyncio
from functools import partial

import structlog

from kohakuriver.host.control.clock import Clock
from kohakuriver.host.control.loop import ControlLoop
from kohakuriver.host.control.nodes import membership
from kohakuriver.host.control.nodes.waiting_room import WaitingRoom
from kohakuriver.models.errors import KohakuRiverError
from kohakuriver.models.network.address_groups import address_group
from kohakuriver.wire.messages import EnrolAnswer, EnrolRequest
from kohakuriver.wire.trust.identity import Identity, fingerprint_of

log = structlog.get_logger()


class NodeEntry:
    """Calls into the control loop; see `membership` for what they mean. Run `run` beside it."""

    def __init__(self, loop: ControlLoop, identity: Identity, clock: Clock) -> None:
        self._loop = loop
        self._identity = identity
        self._clock = clock
        self._waiting = WaitingRoom(clock.monotonic)

    async def enrol(self, request: EnrolRequest, address: str) -> EnrolAnswer:
        """Answer a runner's first contact; raises TooMany while too many ask."""
        state, group = self._loop.state, address_group(address)
        membership.check_request(state, request, self._clock.now(), self._identity)
        if request.join_token_id is None:
            fingerprint = fingerprint_of(request.public_key)
            membership.check_not_refused(self._waiting, state, request)
            if fingerprint in state.enrolments:
                self._waiting.note(fingerprint, group)
                return membership.answer_of(state, request, self._identity)
            self._waiting.check_rate(group)
        handler = partial(membership.enrol, request=request, host=self._identity)
        return await self._loop.call(partial(handler, waiting=self._waiting, address=group))

    async def approve(self, hostname: str, fingerprint: str | None, by: str) -> None:
        await self._loop.call(
            partial(membership.approve_node, hostname=hostname, fingerprint=fingerprint, by=by)
        )

    async def reject(self, hostname: str, fingerprint: str | None, by: str) -> int:
        """Refuse who waits under that name; returns how many those were. Raises NotFound."""
        gone = await self._loop.call(
            partial(membership.reject_node, hostname=hostname, fingerprint=fingerprint)
        )
        for name in gone:
            self._waiting.refuse(name)
        log.info("node_rejected", node=hostname, fingerprints=gone, by=by)
        return len(gone)

    async def run(self, every_seconds: float) -> None:
        """Let go of those that ask no more, for ever."""
        while True:
            await asyncio.sleep(every_seconds)
            waiting = self._loop.state.enrolments.values()
            self._waiting.keep_only(waiting)
            silent = self._waiting.gone_silent(waiting)
            if not silent or self._loop.watch.fault:
                continue
            try:
                await self._loop.call(partial(membership.end_waiting, fingerprints=silent))
                log.info("waiting_nodes_forgotten", count=len(silent))
            except KohakuRiverError as error:
                log.warning("waiting_nodes_not_forgotten", reason=str(error))
