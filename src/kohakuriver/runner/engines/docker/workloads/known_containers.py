"""What is known of the containers of this node's workloads: a copy of what their labels say, by task."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.models.errors import EngineFault, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.docker.output.held_pipes import HeldPipes
from kohakuriver.runner.engines.docker.output.pipe_keeper import PipeKeeper
from kohakuriver.runner.engines.docker.sandboxes.containers import Sandbox, SandboxContainers
from kohakuriver.runner.engines.docker.workloads.containers import Listed, WorkloadContainers


@dataclass(slots=True)
class KnownContainer:
    """What is known of a container. `never_started`: made by this object, and no start was tried yet.
    `unclear`: the engine went away while it was told to start or remove it, and may have forgotten it.
    """

    id: str
    attempt: int
    sandbox: Sandbox | None
    pipes: HeldPipes
    network_rights: bool
    is_vps: bool = False
    never_started: bool = False
    command: str = ""
    working_dir: str = ""
    unclear: bool = False


class KnownContainers:
    """`folder`: private to this runner, for what is to be found again by the next one."""

    def __init__(self, workloads: WorkloadContainers, sandboxes: SandboxContainers, folder: Path) -> None:
        self._workloads = workloads
        self._sandboxes = sandboxes
        self._keeper = PipeKeeper(folder)
        self._known: dict[TaskId, KnownContainer] = {}

    async def load(self, listed: Iterable[Listed]) -> None:
        """Take in what an earlier runner left."""
        await self.take_in(listed)
        await asyncio.to_thread(self._keeper.open, {known.id for known in self._known.values()})

    async def take_in(self, listed: Iterable[Listed]) -> None:
        """Have these held from now on."""
        for row in listed:
            if row.task_id is not None:
                sandbox = await self._sandbox_of(row.sandbox_id)
                self._known[row.task_id] = KnownContainer(
                    row.id, row.attempt, sandbox, self.pipes_of(row.id), row.network_rights, row.is_vps
                )

    def close(self) -> None:
        self._keeper.close()

    def pipes_of(self, container_id: str) -> HeldPipes:
        return HeldPipes(container_id, self._keeper)

    def ids(self) -> set[TaskId]:
        return set(self._known)

    def get(self, task_id: TaskId) -> KnownContainer | None:
        return self._known.get(task_id)

    def put(self, task_id: TaskId, known: KnownContainer) -> None:
        self._known[task_id] = known

    def drop(self, task_id: TaskId) -> None:
        self._known.pop(task_id, None)

    async def find(self, task_id: TaskId, attempt: int) -> KnownContainer:
        """Raises NotFound, or EngineFault for another attempt; `attempt` 0 is any."""
        known = self._known.get(task_id)
        if known is None:
            facts = await self._workloads.find(task_id)
            sandbox = await self._sandbox_of(facts.sandbox_id)
            pipes = self.pipes_of(facts.id)
            known = self._known[task_id] = KnownContainer(
                facts.id, facts.attempt, sandbox, pipes, facts.network_rights, facts.is_vps
            )
        check_attempt(known.attempt, attempt, task_id)
        return known

    async def _sandbox_of(self, sandbox_id: str | None) -> Sandbox | None:
        if sandbox_id is None:
            return None
        try:
            return await self._sandboxes.read(sandbox_id)
        except NotFound:
            return None


def check_attempt(present: int, asked: int, task_id: TaskId) -> None:
    if asked not in (0, present):
        raise EngineFault(f"task {task_id} is here as attempt {present}, and the call is for attempt {asked}")
