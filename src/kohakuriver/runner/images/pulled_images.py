"""Which images this runner pulled, in a file of its state folder: the whole reference and the image's id.

What stands under a name in the engine may be anybody's: an administrator's own build, what another program
keeps there. Only what was pulled for a task is for tasks. A record that is missing or damaged costs a pull.
"""

import asyncio
from pathlib import Path

import msgspec
import structlog

from kohakuriver.private_files import write_private

_MOST_IMAGES = 10_000
_log = structlog.get_logger(__name__)


class PulledImages:
    """One per state folder. The file is read with the first question."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, str] | None = None
        self._writing = asyncio.Lock()

    async def id_of(self, reference: str) -> str | None:
        """The id of the image that was pulled last by this whole reference."""
        return (await self._records()).get(reference)

    async def note(self, reference: str, image_id: str) -> None:
        """Keep it, durable; raises OSError. With too many, the oldest are forgotten."""
        async with self._writing:
            known = await self._records()
            if known.get(reference) == image_id:
                return
            records = {name: kept for name, kept in known.items() if name != reference}
            records[reference] = image_id
            for name in list(records)[: len(records) - _MOST_IMAGES]:
                del records[name]
            await asyncio.to_thread(write_private, self.path, msgspec.json.encode(records))
            self._known = records

    async def _records(self) -> dict[str, str]:
        if self._known is None:
            found = await asyncio.to_thread(self._read)
            if self._known is None:  # another reader may have been first
                self._known = found
        return self._known

    def _read(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning("pulled_images_unreadable", path=str(self.path), error=str(error))
            return {}
