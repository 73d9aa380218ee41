"""The first environment of a cluster, so that a task can name none and still run.

From INITIAL_BASE_IMAGE where it is here or its registry answers; else made on this machine. Runs in the
background of the host: the host serves meanwhile, and what went wrong is shown, not raised.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import Progress, file_chunks, import_tree, inspect_image
from kohakuriver.dockerapi.registry_auth import Candidate, pull_with
from kohakuriver.host.environments.engine_link import EngineLink
from kohakuriver.host.environments.local_tree import (
    DebianRecipe,
    busybox_tree,
    debian_recipe,
    make_debian_tree,
)
from kohakuriver.host.environments.service import EnvironmentService
from kohakuriver.models.errors import KohakuRiverError, NotFound, Unavailable
from kohakuriver.models.spec.image_references import parse_image_reference
from kohakuriver.pauses import growing_pauses

PULL_SILENCE_SECONDS = 30.0
_WHOLE_SECONDS = 1200.0
_FIRST_PAUSE_SECONDS = 30.0
_LONGEST_PAUSE_SECONDS = 600.0
_log = structlog.get_logger(__name__)

DebianTreeMaker = Callable[[DebianRecipe, Path, Progress], Awaitable[None]]


class DefaultEnvironment:
    """Sees to it once per start of the host that the default environment has a tarball."""

    def __init__(
        self,
        service: EnvironmentService,
        engine: EngineLink,
        name: str,
        base_image: str,
        make_tree: DebianTreeMaker = make_debian_tree,
    ) -> None:
        """`name` and `base_image` are DEFAULT_CONTAINER_NAME and INITIAL_BASE_IMAGE."""
        self._service = service
        self._engine = engine
        self._name = name
        self._base_image = base_image
        self._make_tree = make_tree
        self._fault: str | None = None
        self._progress: str | None = None

    def faults(self) -> list[str]:
        """Why there is no default environment; empty when there is one or it is being made."""
        return [self._fault] if self._fault else []

    def progress(self) -> str | None:
        """What is being done now; None when nothing is."""
        return self._progress

    async def keep_trying(self, first_pause_seconds: float = _FIRST_PAUSE_SECONDS) -> None:
        """Ensure the environment until that works, or somebody else has made a tarball; pauses grow."""
        pauses = growing_pauses(first_pause_seconds, _LONGEST_PAUSE_SECONDS, jitter=0)
        await self.ensure_default_environment()
        while self._fault:
            await asyncio.sleep(next(pauses))
            await self.ensure_default_environment()

    async def ensure_default_environment(self, on_progress: Progress | None = None) -> None:
        """Make the tarball unless there is one. Errors become `faults`; cancelled, it leaves nothing."""

        def report(sentence: str) -> None:
            self._progress = sentence
            _log.info("default_environment", step=sentence)
            if on_progress:
                on_progress(sentence)

        try:
            async with asyncio.timeout(_WHOLE_SECONDS):
                await self._ensure(report)
            self._fault = None
        except TimeoutError:
            self._fault = self._sentence(f"it was not made within {_WHOLE_SECONDS / 60:.0f} minutes")
        except (KohakuRiverError, OSError) as error:
            self._fault = self._sentence(str(error))
        finally:
            self._progress = None
        if self._fault:
            _log.warning("default_environment_missing", fault=self._fault)

    async def _ensure(self, report: Progress) -> None:
        try:
            await self._service.inspect_tarballs(self._name)
        except NotFound:
            pass
        else:
            return
        await self._service.check_export(self._name)
        api = await self._engine.get()
        image_id = await self._registry_image(api, report) or await self._local_image(api, report)
        tarball = await self._service.export_image(image_id, self._name, report)
        report(f"default environment {self._name} is ready ({tarball.size_bytes >> 20} MB)")

    async def _registry_image(self, api: DockerApi, report: Progress) -> str | None:
        """The base image's id, pulled if need be; None where it cannot be had."""
        reference = parse_image_reference(self._base_image).whole
        facts = await inspect_image(api, reference)
        if facts is None:
            report(f"pulling {reference}")
            try:
                await _pull_while_it_moves(api, reference, self._service.logins(reference), report)
            except KohakuRiverError as error:
                report(f"{reference} cannot be pulled ({error}); making one here")
                return None
            facts = await inspect_image(api, reference)
        return facts.id if facts else None

    async def _local_image(self, api: DockerApi, report: Progress) -> str:
        with tempfile.TemporaryDirectory(prefix="kohakuriver-base-") as folder:
            archive = Path(folder) / "tree.tar"
            try:
                recipe = await asyncio.to_thread(debian_recipe)
                await self._make_tree(recipe, archive, report)
                command = 'CMD ["bash"]'
            except (KohakuRiverError, OSError) as error:
                report(f"no Debian tree can be made ({error}); busybox must do")
                await asyncio.to_thread(lambda: archive.write_bytes(busybox_tree()))
                command = 'CMD ["sh"]'
            report("importing the file system as an image")
            return await import_tree(api, file_chunks(archive), (command,), report)

    def _sentence(self, reason: str) -> str:
        return (
            f"there is no default environment {self._name}: {reason}. Tasks must name an environment or a "
            "registry image until `kohakuriver docker tar create` makes one"
        )


async def _pull_while_it_moves(
    api: DockerApi, reference: str, logins: Sequence[Candidate], report: Progress
) -> None:
    """Pull for as long as there are signs of life; raises Unavailable after a long silence."""
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(PULL_SILENCE_SECONDS) as limit:
            await pull_with(
                api, reference, logins, report, lambda: limit.reschedule(clock() + PULL_SILENCE_SECONDS)
            )
    except TimeoutError as error:
        raise Unavailable(f"no answer for {PULL_SILENCE_SECONDS:.0f} seconds") from error
