"""Keeps this node known at its host: enrols, registers, and beats for ever, whatever the host does meanwhile.

Rules: a host that does not answer is asked again after pauses that grow to 10 s; a host that does not know
this boot gets a registration; a host that does not know the runner at all is asked to take it in again.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.models.errors import KohakuRiverError, Unauthenticated, Unavailable
from kohakuriver.pauses import HOST_PAUSE_SECONDS, growing_pauses, jittered
from kohakuriver.runner.agent.agent import Agent
from kohakuriver.runner.link.enrolling import Enrolment
from kohakuriver.runner.link.host_client import HostClient
from kohakuriver.runner.link.self_description import Condition, SelfDescription

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PresenceParts:
    """What the loop joins together. `machine_faults`: what is wrong beside agent and monitor.

    `notices`: what does not keep work away, and should be known to the administrator.
    """

    client: HostClient
    enrolment: Enrolment
    description: SelfDescription
    agent: Agent
    interval_seconds: float
    machine_faults: Callable[[], list[str]] = list
    notices: Callable[[], list[str]] = list


class Presence:
    """Run it once with `run`. `fault` is a sentence while the host does not know this node."""

    def __init__(self, parts: PresenceParts) -> None:
        self._parts = parts
        self._reachable = True
        self._registered = False
        self._host_faults: list[str] = []
        self._hurried = asyncio.Event()

    def hurry(self) -> None:
        """Have the next heartbeat go now, because of what it says."""
        self._hurried.set()

    def faults(self) -> list[str]:
        """What stands between this node and its host, and what the host finds wrong with it."""
        fault = self._parts.enrolment.fault
        if fault is None and not self._registered:
            fault = "this runner is not registered with its host"
        if fault is None and not self._reachable:
            fault = "the host does not answer"
        return ([fault] if fault else []) + self._host_faults

    async def run(self) -> None:
        """Go on until cancelled."""
        pauses = growing_pauses(0.5, HOST_PAUSE_SECONDS)
        while True:
            try:
                if self._parts.enrolment.pin is None:
                    await self._parts.enrolment.run()
                await self._register()
                pauses = growing_pauses(0.5, HOST_PAUSE_SECONDS)
                await self._beat_while_known()
            except Unauthenticated as error:
                self._failed(error)
                _log.warning("host_forgot_this_node", reason=str(error))
                await asyncio.sleep(next(pauses))
                await self._parts.enrolment.run()
            except KohakuRiverError as error:
                self._failed(error)
                await asyncio.sleep(next(pauses))

    async def _register(self) -> None:
        self._registered = False
        description, engines = self._parts.description, self._parts.agent.engines
        await description.look()
        reach(CrashPoint.RUNNER_REGISTERING)
        answer = await self._parts.client.register(description.registration(engines.lacks()))
        if not answer.known:
            description.use_session(answer.session)
            answer = await self._parts.client.register(description.registration(engines.lacks()))
        if not answer.known:
            raise Unavailable("the host took another registration of this node for newer; trying again")
        reach(CrashPoint.RUNNER_REGISTERED)
        description.use_session(answer.session)
        await self._parts.enrolment.confirm(answer.cluster_id)
        self._registered = True
        self._host_faults = list(answer.faults)
        _log.info("registered", shared_storage=answer.shared_storage)
        for fault in answer.faults:
            _log.warning("host_found_fault", fault=fault)
        for notice in answer.notices:
            _log.warning("host_found_difference", notice=notice)
        self._succeeded()

    async def _beat_while_known(self) -> None:
        """Beat until a new registration is due."""
        parts, pauses = self._parts, growing_pauses(1.0, HOST_PAUSE_SECONDS)
        while True:
            try:
                if not await self._beat():
                    return
                pauses = growing_pauses(1.0, HOST_PAUSE_SECONDS)
                await self._until_next_beat(jittered(parts.interval_seconds))
            except Unauthenticated:
                raise
            except KohakuRiverError as error:
                self._failed(error)
                await asyncio.sleep(next(pauses))
            await parts.description.look_at_marker()
            if parts.description.is_outdated(parts.agent.engines.lacks()):
                return

    async def _until_next_beat(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()

    async def _beat(self) -> bool:
        """Send one heartbeat and do what its answer says; tell whether the host knows this boot."""
        parts = self._parts
        self._hurried.clear()
        attempts, orders_seen = parts.agent.attempts()
        condition = Condition(
            parts.agent.faults() + parts.machine_faults(), parts.notices(), parts.agent.orphans()
        )
        beat = parts.description.heartbeat(
            attempts, orders_seen, condition, complete=parts.agent.knows_its_engines
        )
        answer = await parts.client.heartbeat(beat)
        self._succeeded()
        if not answer.known:
            return False
        parts.description.heartbeat_arrived(beat)
        await parts.agent.take_over(answer.take_over)
        await parts.agent.end_attempts(answer.end_attempts)
        return True

    def _succeeded(self) -> None:
        if not self._reachable:
            _log.info("host_answers_again")
        self._reachable = True
        self._parts.agent.host_is_back()

    def _failed(self, error: KohakuRiverError) -> None:
        if self._reachable:
            _log.warning("host_not_reached", reason=str(error))
        self._reachable = False
