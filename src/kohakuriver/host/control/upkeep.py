"""What the removal of leftovers needs of the control room, and tells it."""

import asyncio
from collections.abc import Iterable

from kohakuriver.host.control.loop import ControlLoop
from kohakuriver.models.tasks import Task


class Upkeep:
    """Changes nothing of the cluster's state."""

    def __init__(self, loop: ControlLoop) -> None:
        self._loop = loop

    def records_removed(self) -> None:
        """Have answers about ended tasks made anew: some of their records were removed from the store."""
        self._loop.revision += 1

    async def wanted_images(self) -> set[str]:
        """Registry images and environments that work asks for which runs, waits, or can be started again."""
        return await asyncio.to_thread(_images_of, tuple(self._loop.state.tasks.values()))


def _images_of(tasks: Iterable[Task]) -> set[str]:
    found = {task.spec.registry_image or task.spec.container_name for task in tasks}
    return {name for name in found if name is not None}
