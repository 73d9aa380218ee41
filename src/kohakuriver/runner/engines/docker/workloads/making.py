"""How a workload is made: its image, its sandbox, its files and its container, each a step with its undo.

The output files of the workload stay whatever happens, and so does an image that others may use.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from kohakuriver.crash_points import CrashPoint
from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import Conflict, KohakuRiverError, NotFound
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.runner.engines.contract.spec import ImageProvider, ReadyImage, WorkloadSpec
from kohakuriver.runner.engines.docker.inside.guarded_binds import GuardedBinds
from kohakuriver.runner.engines.docker.inside.of_vps import first_process
from kohakuriver.runner.engines.docker.inside.own_mounts import OwnMounts
from kohakuriver.runner.engines.docker.inside.user_accounts import Accounts, ImageAccounts
from kohakuriver.runner.engines.docker.labels import Owner
from kohakuriver.runner.engines.docker.output.copy import OutputPaths
from kohakuriver.runner.engines.docker.output.files import reset_output
from kohakuriver.runner.engines.docker.sandboxes.containers import Sandbox
from kohakuriver.runner.engines.docker.sandboxes.of_vps import VpsSandboxes
from kohakuriver.runner.engines.docker.sandboxes.pool import SandboxPool
from kohakuriver.runner.engines.docker.snapshots.snapshots import Snapshots
from kohakuriver.runner.engines.docker.workloads.body import EngineTraits, Placement, container_body
from kohakuriver.runner.engines.docker.workloads.containers import WorkloadContainers
from kohakuriver.runner.engines.docker.workloads.create import container_name, create_anew
from kohakuriver.runner.engines.docker.workloads.image import image_for, with_image_command
from kohakuriver.runner.engines.docker.workloads.known_containers import KnownContainer, KnownContainers
from kohakuriver.runner.engines.docker.workloads.rights import has_network_rights, has_own_sandbox
from kohakuriver.runner.engines.docker.workloads.start_errors import create_fault
from kohakuriver.runner.engines.docker.workloads.start_turns import StartTurns
from kohakuriver.runner.engines.steps import Step

_WRITING_SECONDS = 30.0
"""How long what a thread still writes is waited for before it is removed."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class MakingParts:
    """What the making of workloads shares with the engine."""

    api: DockerApi
    owner: Owner
    images: ImageProvider
    snapshots: Snapshots
    pool: SandboxPool
    own_sandboxes: VpsSandboxes
    binds: GuardedBinds
    accounts: ImageAccounts
    own_mounts: OwnMounts
    workloads: WorkloadContainers
    known_containers: KnownContainers
    turns: StartTurns
    threads: ThreadPoolExecutor


class Making:
    """The making of one workload: take its `steps`, then ask for what was made."""

    def __init__(
        self,
        parts: MakingParts,
        spec: WorkloadSpec,
        traits: EngineTraits,
        on_progress: Callable[[str], None],
    ) -> None:
        self._parts = parts
        self._spec = spec
        self._traits = traits
        self._on_progress = on_progress
        self._image = ReadyImage("")
        self._sandbox: Sandbox | None = None
        self._writing: Future[tuple[Mount, ...]] | None = None
        self._mounts: tuple[Mount, ...] = ()
        self._container_id = ""
        self._may_hold_sandbox = False

    def steps(self) -> list[Step]:
        return [
            Step("image", self._bring_image, self._sweep_images, CrashPoint.RUNNER_IMAGE_READY),
            Step("sandbox", self._take_sandbox, self._give_back_sandbox, CrashPoint.RUNNER_SANDBOX_TAKEN),
            Step("files", self._write_files, self._remove_files, CrashPoint.RUNNER_FILES_PREPARED),
            Step("container", self._create, self._remove, CrashPoint.RUNNER_CONTAINER_CREATED),
        ]

    @property
    def digest(self) -> str | None:
        return self._image.digest

    @property
    def known(self) -> KnownContainer:
        return KnownContainer(
            self._container_id,
            self._spec.attempt,
            self._sandbox,
            self._parts.known_containers.pipes_of(self._container_id),
            network_rights=has_network_rights(self._spec),
            is_vps=self._spec.session is not None,
            never_started=True,
            command=first_process(self._spec)[0],
            working_dir=self._spec.working_dir,
        )

    async def _bring_image(self) -> None:
        parts = self._parts
        self._image = await image_for(self._spec, parts.images, parts.snapshots, self._on_progress)

    async def _sweep_images(self) -> None:
        """What was made only for a VPS."""
        if self._spec.session is not None:
            await self._parts.snapshots.sweep(self._spec.task_id)

    async def _take_sandbox(self) -> None:
        setup = self._spec.session
        if not has_own_sandbox(self._spec):
            self._sandbox = await self._parts.pool.take()
        elif setup is None:
            self._sandbox = await self._parts.own_sandboxes.make(self._spec.body.options.hostname, None)
        else:
            self._sandbox = await self._parts.own_sandboxes.make(setup.hostname, setup.address)

    async def _give_back_sandbox(self) -> None:
        if self._sandbox is not None:
            is_free = not self._may_hold_sandbox and not has_own_sandbox(self._spec)
            await self._parts.pool.give_back(self._sandbox, reusable=is_free)

    async def _write_files(self) -> None:
        parts, sandbox, image = self._parts, self._the_sandbox(), self._image.id
        spec = await with_image_command(parts.api, self._spec, image)
        first_pid = sandbox.mark.pid if sandbox.mark is not None else None
        self._spec = spec = await self._in_thread(parts.binds.guarded, spec, first_pid)
        accounts = await self._accounts()
        edits = await parts.snapshots.edits_in(spec.task_id, image)
        output = OutputPaths(spec.stdout_path, spec.stderr_path, spec.output_starts)
        await self._in_thread(reset_output, output.all, output.starts)
        self._writing = parts.threads.submit(parts.own_mounts.prepare, spec, sandbox, accounts, edits)
        self._mounts = await asyncio.wrap_future(self._writing)

    async def _accounts(self) -> Accounts | None:
        """The engine may refuse to have the image read as it would refuse the workload's own container."""
        try:
            return await self._parts.accounts.of_task(self._spec, self._image.id)
        except KohakuRiverError as error:
            raise create_fault(error, self._spec, self._image.id) from error

    async def _remove_files(self) -> None:
        if self._writing is not None and not self._writing.done():
            # What a thread has begun it goes on with, although nobody waits for it.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WRITING_SECONDS):
                    await asyncio.gather(asyncio.wrap_future(self._writing), return_exceptions=True)
        await self._in_thread(self._parts.own_mounts.remove, self._spec.task_id)

    async def _create(self) -> None:
        parts, spec, image = self._parts, self._spec, self._image.id
        placement = Placement(parts.owner, image, self._the_sandbox().id, self._mounts)
        body = container_body(spec, placement, self._traits)
        self._may_hold_sandbox = True
        try:
            async with parts.turns.one():
                self._container_id = await create_anew(parts.workloads, spec, body)
        except KohakuRiverError as error:
            raise create_fault(error, spec, image) from error

    async def _remove(self) -> None:
        """The call may have reached the engine although it failed here: look."""
        with contextlib.suppress(NotFound, Conflict):
            facts = await self._parts.workloads.inspect(container_name(self._spec))
            if facts.sandbox_id == self._the_sandbox().id:
                await self._parts.workloads.remove(facts.id)
        self._may_hold_sandbox = False

    def _the_sandbox(self) -> Sandbox:
        if self._sandbox is None:
            raise AssertionError("this step comes after the one that takes the sandbox")
        return self._sandbox

    async def _in_thread(self, work: Callable[..., _T], *args: object) -> _T:
        return await asyncio.wrap_future(self._parts.threads.submit(work, *args))
