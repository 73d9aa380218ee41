"""Removes images that nothing has wanted for long.

Rules: only what this runner brought here for work, by its own record of uses, and never what LOCAL_IMAGES
names; never an image of which a container is there, by whomever, nor one that the host says is needed; an
environment's only once that environment is no more. A name is removed, and the image goes with its last name.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import ImageFacts, inspect_image, list_environment_images, remove_image
from kohakuriver.dockerapi.tarballs import list_tarballs
from kohakuriver.models.errors import Conflict, InvalidInput
from kohakuriver.models.names import environment_image
from kohakuriver.models.spec.image_references import parse_image_reference
from kohakuriver.runner.images.used_images import UsedImages, environment_of

_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class ImageNeeds:
    """What must stay: images by their names, and environments (None: it is not known which there are)."""

    images: Collection[str] = ()
    environments: Collection[str] | None = None


class UnusedImages:
    """`local_images` is LOCAL_IMAGES, `tar_dir` CONTAINER_TAR_DIR."""

    def __init__(
        self,
        api: DockerApi,
        used: UsedImages,
        tar_dir: Path,
        local_images: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._used = used
        self._tar_dir = tar_dir
        self._local = {parse_image_reference(text).whole for text in local_images}
        self._clock = clock

    async def sweep(self, days: int, needs: ImageNeeds, *, removes: bool) -> tuple[int, int]:
        """Remove (or count) what was not used for so many days; return how many, and their bytes.

        What containers use counts as used now. The bytes are those of whole images, layers that others
        share included.
        """
        rows = await self._api.json("GET", "containers/json", params={"all": "1"})
        in_use = {row["ImageID"] for row in rows}
        needed = self._local | set(_whole(needs.images))
        count = size_bytes = 0
        for name in list(await self._used.records()):
            facts = await self._facts_of(name)
            if facts is not None and facts.id in in_use:
                await self._used.note(name)
                continue
            if name in needed or not await self._may_go(name, needs):
                continue
            if await self._is_old(name, days) and await self._remove(name, facts, removes, days):
                count += facts is not None
                size_bytes += facts.size_bytes if facts else 0
        return count, size_bytes

    async def _facts_of(self, name: str) -> ImageFacts | None:
        environment = environment_of(name)
        return await inspect_image(self._api, environment_image(environment) if environment else name)

    async def _may_go(self, name: str, needs: ImageNeeds) -> bool:
        environment = environment_of(name)
        if environment is None:
            return True
        if needs.environments is None or environment in needs.environments or environment in needs.images:
            return False
        return not await asyncio.to_thread(list_tarballs, self._tar_dir, environment)

    async def _is_old(self, name: str, days: int) -> bool:
        at = (await self._used.records()).get(name)
        return at is not None and self._clock() - at > days * _DAY_SECONDS

    async def _remove(self, name: str, facts: ImageFacts | None, removes: bool, days: int) -> bool:
        """False: it is wanted after all."""
        if not removes:
            return True
        async with self._used.lock:
            if not await self._is_old(name, days):
                return False
            if facts is not None:
                try:
                    await self._untag(name)
                except Conflict:
                    return False  # a container was made of it meanwhile
            await self._used.forget(name)
        return True

    async def _untag(self, name: str) -> None:
        environment = environment_of(name)
        if environment is None:
            await remove_image(self._api, name)
            return
        for known in await list_environment_images(self._api):
            if known.name == environment:
                await remove_image(self._api, environment_image(known.name, known.tag))


def _whole(names: Collection[str]) -> list[str]:
    found = []
    for name in names:
        with contextlib.suppress(InvalidInput):
            found.append(parse_image_reference(name).whole)
    return found
