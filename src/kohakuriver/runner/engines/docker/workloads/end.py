"""The end of a workload: waiting for it, bringing it about, telling whether a restart of the engine did."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.models.errors import Conflict, EngineFault, NotFound, Unavailable
from kohakuriver.pauses import growing_pauses
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.docker.inside.of_vps import FIRST_PROCESS
from kohakuriver.runner.engines.docker.kernel.inner_processes import InnerProcesses
from kohakuriver.runner.engines.docker.kernel.log import oom_killed_in
from kohakuriver.runner.engines.docker.sandboxes.containers import Sandbox, SandboxContainers
from kohakuriver.runner.engines.docker.workloads.containers import Inspected, WorkloadContainers

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_KILL_SECONDS = 30.0
# What an init needs to see that its child has ended.
_RELEASED_SECONDS = 5.0
_KILLED = 137
# Exit statuses of what was ended from outside: by signal, or found dead by an engine that came up again.
_FROM_OUTSIDE = frozenset((130, 137, 143, 255))
# An engine that goes down ends its containers side by side.
_SIDE_BY_SIDE = timedelta(seconds=2)

_log = structlog.get_logger()


async def until_exit(
    workloads: WorkloadContainers, container_id: str, look: Callable[[int], Awaitable[None]]
) -> Inspected:
    """Outlasts restarts of the engine; raises NotFound if the container is gone.

    `look` gets the container's process each time that it is found alive, 0 when the engine is unreachable.
    """
    pauses = growing_pauses(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, jitter=0)
    while True:
        try:
            facts = await workloads.inspect(container_id)
            if facts.state is WorkloadState.CREATED:
                raise EngineFault("the workload was not started, so its end cannot be waited for")
            if facts.state is WorkloadState.EXITED:
                return await _with_late_news(workloads, facts)
            await look(facts.pid)
            await workloads.wait_until_stopped(container_id)
            pauses = growing_pauses(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, jitter=0)
        except Unavailable as error:
            pause = next(pauses)
            _log.warning("engine_unavailable", container=container_id, error=str(error), pause=pause)
            await look(0)
            await asyncio.sleep(pause)


async def _with_late_news(workloads: WorkloadContainers, facts: Inspected) -> Inspected:
    """An engine may hear of the OOM killer after the end, or never; the kernel's log knows.

    Of what ended well the engine has heard long before, if there was anything to hear.
    """
    if facts.exit_code == 0 or facts.oom_killed or facts.finished_at is None:
        return facts
    was_there = await asyncio.to_thread(oom_killed_in, facts.id)
    if not was_there and facts.exit_code == _KILLED:
        was_there = await workloads.memory_ran_out(facts.id, facts.finished_at)
    return replace(facts, oom_killed=was_there)


async def bring_to_end(workloads: WorkloadContainers, container_id: str, grace_seconds: float) -> None:
    """SIGTERM, and after the grace SIGKILL; what is frozen is thawed first. Nothing if it does not run.

    Cut off in the middle it leaves the first process halted, for whoever goes on with it.
    """
    workloads.ending.add(container_id)
    if grace_seconds > 0 and await _ends_at_sigterm(workloads, container_id, grace_seconds):
        return
    await _signal(workloads, container_id, "SIGKILL")
    if not await _stopped_within(workloads, container_id, _KILL_SECONDS):
        raise EngineFault("the workload does not end after SIGKILL; a process of it may hang in the kernel")


async def _ends_at_sigterm(workloads: WorkloadContainers, container_id: str, seconds: float) -> bool:
    """Whether it has ended, or did not run."""
    inner = await _thawed(workloads, container_id)
    if inner is None:
        if not await _signal(workloads, container_id, "SIGTERM"):
            return True
        reach(CrashPoint.RUNNER_KILL_SIGNALLED)
        return await _stopped_within(workloads, container_id, seconds)
    if not await _all_ended_within(inner, seconds):
        return False
    await asyncio.to_thread(inner.release_first)
    return await _stopped_within(workloads, container_id, _RELEASED_SECONDS)


async def end_inner(workloads: WorkloadContainers, container_id: str, grace_seconds: float) -> None:
    """End all that runs in a VPS but its own first processes; nothing where that cannot be seen.

    It counts as ending until it is set up again.
    """
    inner = await _thawed(workloads, container_id)
    if inner is None:
        return
    workloads.ending.add(container_id)
    spared = (tuple(word.encode() for word in FIRST_PROCESS),)
    await asyncio.to_thread(lambda: inner.tell_to_end(inner.all(spared)))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_seconds):
            return await inner.all_end(spared)
    try:
        async with asyncio.timeout(_KILL_SECONDS):
            while left := await asyncio.to_thread(inner.all, spared):
                await asyncio.to_thread(inner.send, left, signal.SIGKILL)
                await asyncio.sleep(_FIRST_PAUSE_SECONDS)
    except TimeoutError as error:
        raise EngineFault(
            "what runs in the VPS does not end after SIGKILL; a process of it may hang in the kernel"
        ) from error


async def send_to_all(workloads: WorkloadContainers, facts: Inspected, name: str) -> None:
    """Send a signal to all of a workload that runs; where only the engine can, to its first process."""
    number = signal.Signals[f"SIG{name}"]
    inner = await asyncio.to_thread(InnerProcesses.of, facts.id, facts.pid)
    if inner is None:
        await workloads.signal(facts.id, number.name)
    else:
        await asyncio.to_thread(lambda: inner.send(inner.all(), number))


async def _thawed(workloads: WorkloadContainers, container_id: str) -> InnerProcesses | None:
    """Its processes, thawed; None where they cannot be seen, or none run."""
    with contextlib.suppress(Conflict, EngineFault):
        await workloads.unpause(container_id)
    facts = await workloads.inspect(container_id)
    if facts.state is not WorkloadState.RUNNING or not facts.pid:
        return None
    return await asyncio.to_thread(InnerProcesses.of, container_id, facts.pid)


async def _all_ended_within(inner: InnerProcesses, seconds: float) -> bool:
    """Tell all to end, and wait for the last one while the first process cannot take the others with it."""

    def tell() -> None:
        inner.hold_first()
        inner.tell_to_end(inner.all())

    await asyncio.to_thread(tell)
    reach(CrashPoint.RUNNER_KILL_SIGNALLED)
    try:
        async with asyncio.timeout(seconds):
            await inner.all_end()
    except TimeoutError:
        return False
    return True


async def _signal(workloads: WorkloadContainers, container_id: str, name: str) -> bool:
    """Send it, thawing first what is frozen; False: nothing runs."""
    with contextlib.suppress(Conflict, EngineFault):
        await workloads.unpause(container_id)
    try:
        await workloads.signal(container_id, name)
    except Conflict:
        return False
    return True


async def _stopped_within(workloads: WorkloadContainers, container_id: str, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await workloads.wait_until_stopped(container_id)
    except TimeoutError:
        return False
    return True


async def fell_with_engine(sandboxes: SandboxContainers, sandbox: Sandbox | None, facts: Inspected) -> bool:
    """Tell whether the engine's or the node's restart ended the workload.

    Its sandbox is the witness: nothing that the workload does ends that one, and a restart ends both.
    """
    if sandbox is None or facts.oom_killed or facts.exit_code not in _FROM_OUTSIDE:
        return False
    try:
        fallen = await sandboxes.ended_at(sandbox.id)
    except NotFound:
        return False
    return fallen is not None and (facts.finished_at or fallen) >= fallen - _SIDE_BY_SIDE
