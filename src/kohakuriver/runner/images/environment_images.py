"""Images onto this node: environments from their tarballs; those of registries are `registry_images`' work.

An environment's image is `kohakuriver/NAME:base`; it is also tagged with the time of the tarball that it came
from, and nothing else says which version the node has. Both tags are set after the whole tarball is in, so
that a load that fails half-way changes nothing. A newer tarball that cannot be used is an error: running an
old version in its place without a word would be worse.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import (
    EnvironmentImage,
    inspect_image,
    list_environment_images,
    load_stream,
    move_tag,
    remove_image,
)
from kohakuriver.dockerapi.layer_holes import keep_holes_of_archive
from kohakuriver.dockerapi.tarballs import BrokenTarball, OpenTarball, Tarball, list_tarballs
from kohakuriver.models.errors import EngineFault, NotFound, Unavailable
from kohakuriver.models.names import check_environment_name, environment_image
from kohakuriver.models.spec.image_references import parse_image_reference
from kohakuriver.runner.engines.contract.faults import (
    NodeFault,
    NoDiskSpace,
    RegistryUnavailable,
    no_disk_space_sentence,
    says_broken,
    says_full,
)
from kohakuriver.runner.engines.contract.spec import ImageChoice, ReadyImage
from kohakuriver.runner.images.registry_images import RegistryImages
from kohakuriver.runner.images.single_flight import Progress, SingleFlight

_log = structlog.get_logger(__name__)


class EnvironmentImages:
    """Brings images here on demand. Syncs of different images run side by side, of one image once."""

    def __init__(
        self, api: DockerApi, tar_dir: Path, timeout_seconds: float, registry_images: RegistryImages
    ) -> None:
        """`tar_dir` and `timeout_seconds` are CONTAINER_TAR_DIR and DOCKER_IMAGE_SYNC_TIMEOUT."""
        self._api = api
        self._tar_dir = tar_dir
        self._timeout_seconds = timeout_seconds
        self._registry_images = registry_images
        self._syncs: SingleFlight[ReadyImage] = SingleFlight()

    async def ensure(self, image: ImageChoice, on_progress: Callable[[str], None]) -> ReadyImage:
        """Bring the image here if it is not, or if the registry is to be asked each time.

        NotFound: no such environment or image; EngineFault: it could not be loaded or pulled, or not in time.
        """
        if image.environment is not None:
            name = check_environment_name(image.environment)
            what = f"environment {name}"
            return await self._syncs.run(
                what,
                lambda report: self._in_time(
                    lambda heard: self._sync_environment(name, heard), what, EngineFault, report
                ),
                on_progress,
            )
        text = image.registry_image or ""
        what = f"image {text}"
        return await self._syncs.run(
            f"{parse_image_reference(text).whole} {image.pull.value}",
            lambda report: self._in_time(
                lambda heard: self._registry_images.sync(text, image.pull, heard),
                what,
                RegistryUnavailable,
                report,
            ),
            on_progress,
        )

    async def close(self) -> None:
        """End syncs that run."""
        await self._syncs.close()

    async def _in_time(
        self,
        work: Callable[[Progress], Awaitable[ReadyImage]],
        what: str,
        fault: type[EngineFault],
        report: Progress,
    ) -> ReadyImage:
        last = ""

        def hear(sentence: str) -> None:
            nonlocal last
            last = sentence
            report(sentence)

        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await work(hear)
        except TimeoutError as error:
            # What kept it stands there, where it is known: a try that was cut off has no reason of its own.
            at_last = f" (at last: {last})" if last else ""
            raise fault(
                f"{what} was not ready within {self._timeout_seconds:g} seconds, which is this node's "
                f"DOCKER_IMAGE_SYNC_TIMEOUT{at_last}; the next try begins anew"
            ) from error

    async def _sync_environment(self, name: str, report: Progress) -> ReadyImage:
        versions = await asyncio.to_thread(list_tarballs, self._tar_dir, name)
        if versions:
            image_id = await self._id_here(versions[-1]) or await self._load(versions[-1], report)
            return ReadyImage(image_id, image_id)
        base = await inspect_image(self._api, environment_image(name))
        if base is None or await self._was_deleted(name):
            raise NotFound(await self._sentence_of_unknown(name))
        return ReadyImage(base.id, base.id)

    async def _was_deleted(self, name: str) -> bool:
        """Whether what is here came from a tarball that is gone, though the folder of tarballs is there.

        The image stays: another cluster on this engine may have an environment of that name.
        """
        if not await asyncio.to_thread(self._tar_dir.is_dir):
            return False
        return any(image.name == name and image.tag != "base" for image in await self.list())

    async def remove(self, name: str) -> None:
        """Take away the environment's image, since it was deleted; what runs on it goes on."""
        for image in await self.list():
            if image.name == name:
                await remove_image(self._api, environment_image(name, image.tag), force=True)

    async def _id_here(self, tarball: Tarball) -> str | None:
        """The image's id, None where this node does not have this version."""
        base = await inspect_image(self._api, environment_image(tarball.name))
        dated = await inspect_image(self._api, environment_image(tarball.name, str(tarball.unix_time)))
        return base.id if base is not None and dated is not None and base.id == dated.id else None

    async def _load(self, tarball: Tarball, report: Progress) -> str:
        report(f"loading {tarball.path.name} ({tarball.size_bytes >> 20} MB)")
        image_id = await self._loaded_id(tarball, report)
        reach(CrashPoint.RUNNER_IMAGE_LOADED)
        repository, _, base_tag = environment_image(tarball.name).rpartition(":")
        for tag in (base_tag, str(tarball.unix_time)):
            await move_tag(self._api, image_id, repository, tag)
            reach(CrashPoint.RUNNER_IMAGE_TAGGED_ONCE)
        for known in await list_environment_images(self._api):
            if known.name == tarball.name and known.tag not in (base_tag, str(tarball.unix_time)):
                await remove_image(self._api, environment_image(known.name, known.tag), force=True)
        _log.info("environment_loaded", environment=tarball.name, version=tarball.unix_time, image=image_id)
        return image_id

    async def _loaded_id(self, tarball: Tarball, report: Progress) -> str:
        """Load the tarball and return the id of its image, which has no tag yet."""
        try:
            archive = await asyncio.to_thread(OpenTarball, tarball.path)
            begun = time.time()
            try:
                loaded = await load_stream(
                    self._api, archive.chunks(), lambda part: report(f"{tarball.path.name}: {part}")
                )
                await keep_holes_of_archive(self._api, archive, loaded, begun)
            finally:
                archive.close()
        except BrokenTarball as error:
            raise EngineFault(_broken(tarball, str(error))) from error
        except EngineFault as error:
            if says_full(str(error)):
                raise NoDiskSpace(no_disk_space_sentence(f"environment {tarball.name}", error)) from error
            if says_broken(str(error)):
                raise NodeFault(f"the engine cannot take in environment {tarball.name}: {error}") from error
            raise EngineFault(_broken(tarball, f"the engine says: {error}")) from error
        except OSError as error:
            raise Unavailable(f"{tarball.path} cannot be read: {error.strerror or error}") from error
        facts = await inspect_image(self._api, loaded[0]) if len(loaded) == 1 else None
        if facts is None:
            raise EngineFault(_broken(tarball, "the engine found no image in it"))
        return facts.id

    async def _sentence_of_unknown(self, name: str) -> str:
        tarballs = await asyncio.to_thread(list_tarballs, self._tar_dir)
        images = await list_environment_images(self._api)
        here = {image.name for image in images if image.tag == "base"}
        if await asyncio.to_thread(self._tar_dir.is_dir):
            here -= {image.name for image in images if image.tag != "base"}  # those of tarballs, listed below
        known = sorted(here | {tarball.name for tarball in tarballs})
        there = f"there are: {', '.join(known)}" if known else f"{self._tar_dir} holds none"
        return f"there is no environment {name!r}; {there}. `kohakuriver docker tar create` makes one"

    async def list(self) -> Sequence[EnvironmentImage]:
        """The environments whose images are on this node, each with its tags."""
        return await list_environment_images(self._api)


def _broken(tarball: Tarball, reason: str) -> str:
    return (
        f"the tarball {tarball.path} cannot be used: {reason}. Make it anew with "
        f"`kohakuriver docker tar create {tarball.name}` or delete it"
    )
