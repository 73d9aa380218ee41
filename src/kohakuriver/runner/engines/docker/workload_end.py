"""The end of a workload: waiting for it, bringing it about, telling whether a restart of the engine did."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.models.errors import Conflict, EngineFault, NotFound, Unavailable
from kohakuriver.runner.engines.base import WorkloadState
from kohakuriver.runner.engines.docker.kernel_log import memory_killer_was_in
from kohakuriver.runner.engines.docker.sandbox_containers import Sandbox, SandboxContainers
from kohakuriver.runner.engines.docker.workload_containers import Inspected, WorkloadContainers

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_KILL_SECONDS = 30.0
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

    `look` is told the container's process each time that it is found alive, and 0 when the engine is away.
    """
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            facts = await workloads.inspect(container_id)
            if facts.state is WorkloadState.CREATED:
                raise EngineFault("the workload was not started, so its end cannot be waited for")
            if facts.state is WorkloadState.EXITED:
                return await _with_late_news(workloads, facts)
            await look(facts.pid)
            await workloads.wait_until_stopped(container_id)
            pause = _FIRST_PAUSE_SECONDS
        except Unavailable as error:
            _log.warning("engine_unavailable", container=container_id, error=str(error), pause=pause)
            await look(0)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


async def _with_late_news(workloads: WorkloadContainers, facts: Inspected) -> Inspected:
    """An engine may hear of the memory killer's deed after the end, or never; the kernel's log knows."""
    if facts.exit_code != _KILLED or facts.oom_killed or facts.finished_at is None:
        return facts
    was_there = await asyncio.to_thread(memory_killer_was_in, facts.id)
    if not was_there:
        was_there = await workloads.memory_ran_out(facts.id, facts.finished_at)
    return replace(facts, oom_killed=was_there)


async def bring_to_end(workloads: WorkloadContainers, container_id: str, grace_seconds: float) -> None:
    """SIGTERM, and after the grace SIGKILL; what is frozen is thawed first. Nothing if it does not run."""
    if not await _signal(workloads, container_id, "SIGTERM"):
        return
    reach(CrashPoint.RUNNER_KILL_SIGNALLED)
    if await _stopped_within(workloads, container_id, grace_seconds):
        return
    await _signal(workloads, container_id, "SIGKILL")
    if not await _stopped_within(workloads, container_id, _KILL_SECONDS):
        raise EngineFault("the workload does not end after SIGKILL; a process of it may hang in the kernel")


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
