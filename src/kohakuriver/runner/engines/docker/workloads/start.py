"""Starting a workload's container, also by an engine that was restarted since the container was made."""

import asyncio
from pathlib import Path

from kohakuriver.models.errors import KohakuRiverError
from kohakuriver.runner.engines.contract.faults import LostByEngine
from kohakuriver.runner.engines.docker.kernel.forgotten import Forgotten, end_forgotten
from kohakuriver.runner.engines.docker.sandboxes.containers import Sandbox, SandboxContainers
from kohakuriver.runner.engines.docker.workloads.containers import WorkloadContainers
from kohakuriver.runner.engines.docker.workloads.start_errors import is_forgotten, is_sandbox_down

# How long the engine may take to see that what it forgot has ended.
FORGETTING_SECONDS = 10.0
PAUSE_SECONDS = 0.1


async def start_in_sandbox(
    workloads: WorkloadContainers,
    sandboxes: SandboxContainers,
    container_id: str,
    sandbox: Sandbox | None,
    *,
    unanswered: Path | None = None,
) -> None:
    """Start the command, once. Raises LostByEngine if it may have been started before.

    `unanswered`: the engine's journal of a container that may have been told to start before, where no answer
    came. None where none of it was.
    """
    if unanswered is not None:
        await _check_never_begun(container_id, unanswered)
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


async def _check_never_begun(container_id: str, journal: Path) -> None:
    """That the engine holds the container to be new proves nothing: it may have gone before it noted more.

    An engine opens the journal before it has the first process made. That one waits, and is found, until it
    is told to become the command; where there is a journal and no such process, the command may have run.
    """
    has_journal = await asyncio.to_thread(journal.exists)
    if has_journal and await asyncio.to_thread(end_forgotten, container_id) is not Forgotten.NOT_BEGUN:
        raise _lost()


def _lost() -> LostByEngine:
    return LostByEngine("the engine was restarted while it started the task, and lost it")


async def _start_over(workloads: WorkloadContainers, container_id: str) -> None:
    """The engine went away while it started the container: a command that did not run may still."""
    if await asyncio.to_thread(end_forgotten, container_id) is Forgotten.BEGUN:
        raise _lost()
    deadline = asyncio.get_running_loop().time() + FORGETTING_SECONDS
    while True:
        try:
            return await workloads.start(container_id)
        except KohakuRiverError as error:
            if not is_forgotten(error):
                raise
            if asyncio.get_running_loop().time() > deadline:
                raise _lost() from error
        await asyncio.sleep(PAUSE_SECONDS)
