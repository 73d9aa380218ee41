"""When each image was wanted last, in a file of the runner's state folder; what is not in it is not ours.

What stands there is written at most once an hour for each image. A record that is missing or damaged costs
room: an image is as young as its first use after that.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from kohakuriver.models.spec.image_references import parse_image_reference
from kohakuriver.private_files import write_private
from kohakuriver.runner.engines.contract.spec import ImageChoice, ImageProvider, ReadyImage

_ENVIRONMENT = "environment "
_WRITE_AFTER_SECONDS = 3600
_MOST_IMAGES = 10_000
_log = structlog.get_logger(__name__)


def name_of(choice: ImageChoice) -> str:
    """What an image goes by in the record; raises InvalidInput for a name that is none."""
    if choice.environment is not None:
        return f"{_ENVIRONMENT}{choice.environment}"
    return parse_image_reference(choice.registry_image or "").whole


def environment_of(name: str) -> str | None:
    """The environment that a name of the record means, None for an image of a registry."""
    return name.removeprefix(_ENVIRONMENT) if name.startswith(_ENVIRONMENT) else None


class UsedImages:
    """Hold `lock` while an image is removed: a use that is noted meanwhile comes after that."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.lock = asyncio.Lock()
        self._path = path
        self._clock = clock
        self._known: dict[str, int] | None = None

    async def note(self, name: str) -> None:
        """Keep that the image is wanted now; a disk that takes no more writes costs only the note."""
        async with self.lock:
            known = await self.records()
            now = int(self._clock())
            before = known.get(name, 0)
            known.pop(name, None)
            known[name] = now
            for oldest in list(known)[: len(known) - _MOST_IMAGES]:
                del known[oldest]
            if now - before > _WRITE_AFTER_SECONDS:
                await self._write(known)

    async def records(self) -> dict[str, int]:
        """Names and unix times, what was used last at the end; to be changed only by `note` and `forget`."""
        if self._known is None:
            self._known = await asyncio.to_thread(self._read)
        return self._known

    async def forget(self, name: str) -> None:
        """Strike out an image that was removed; the caller holds the lock."""
        known = await self.records()
        if known.pop(name, None) is not None:
            await self._write(known)

    async def _write(self, known: dict[str, int]) -> None:
        try:
            await asyncio.to_thread(write_private, self._path, msgspec.json.encode(known))
        except OSError as error:
            _log.warning("used_images_not_written", path=str(self._path), error=str(error))

    def _read(self) -> dict[str, int]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, int])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning("used_images_unreadable", path=str(self._path), error=str(error))
            return {}


class NotedImages:
    """Images as workloads ask for them; each is noted before it is looked for."""

    def __init__(self, images: ImageProvider, used: UsedImages) -> None:
        self._images = images
        self._used = used

    async def ensure(self, image: ImageChoice, on_progress: Callable[[str], None]) -> ReadyImage:
        await self._used.note(name_of(image))
        return await self._images.ensure(image, on_progress)
