"""Starting a workload's container, also by an engine that was restarted since the container was made."""

import asyncio

from kohakuriver.models.errors import KohakuRiverError
from kohakuriver.runner.engines.base import LostByEngine
from kohakuriver.runner.engines.docker.forgotten_tasks import Forgotten, end_forgotten
from kohakuriver.runner.engines.docker.sandbox_containers import Sandbox, SandboxContainers
from kohakuriver.runner.engines.docker.start_errors import is_forgotten, is_sandbox_down
from kohakuriver.runner.engines.docker.workload_containers import WorkloadContainers

# How long the engine may take to see that what it forgot has ended.
_FORGETTING_SECONDS = 10.0
_PAUSE_SECONDS = 0.1


async def start_in_sandbox(
    workloads: WorkloadContainers, sandboxes: SandboxContainers, container_id: str, sandbox: Sandbox | None
) -> None:
    """Start the command, once. Raises LostByEngine if it may have been started before."""
    try:
        await workloads.start(container_id)
    except KohakuRiverError as error:
        if is_forgotten(error):
            await _start_over(workloads, container_id)
        elif is_sandbox_down(error) and sandbox is not None:
            # The engine was restarted between create and start, so the command has not run.
            await sandboxes.revive(sandbox)
            await workloads.start(container_id)
        else:
            raise


async def _start_over(workloads: WorkloadContainers, container_id: str) -> None:
    """The engine went away while it started the container: a command that did not run may still."""
    lost = LostByEngine("the engine was restarted while it started the task, and lost it")
    if await asyncio.to_thread(end_forgotten, container_id) is Forgotten.BEGUN:
        raise lost
    deadline = asyncio.get_running_loop().time() + _FORGETTING_SECONDS
    while True:
        try:
            return await workloads.start(container_id)
        except KohakuRiverError as error:
            if not is_forgotten(error):
                raise
            if asyncio.get_running_loop().time() > deadline:
                raise lost from error
        await asyncio.sleep(_PAUSE_SECONDS)
