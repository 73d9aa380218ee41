"""Workloads that engines hold and the journal does not know: shown to the host, and ended on its word.

What is left of an attempt that was done before is ended without it.
"""

import asyncio
import contextlib
from collections.abc import Mapping

import structlog

from kohakuriver.models.errors import KohakuRiverError, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.pauses import growing_pauses
from kohakuriver.runner.agent import intake
from kohakuriver.runner.agent.book import Key
from kohakuriver.runner.engines.contract.engine import FoundWorkload
from kohakuriver.runner.engines.engines import Engines

_log = structlog.get_logger(__name__)


class Strays:
    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._found: dict[Key, FoundWorkload] = {}
        self._names: dict[Key, str] = {}
        self._ending: set[Key] = set()

    def __contains__(self, key: Key) -> bool:
        return key in self._found

    @property
    def found(self) -> Mapping[Key, FoundWorkload]:
        return self._found

    def of_task(self, task_id: TaskId) -> list[Key]:
        return [key for key in self._found if key[0] == task_id]

    def engine_of(self, task_id: TaskId) -> str | None:
        """The name of the engine that holds strays of the task."""
        return next((self._names[key] for key in self.of_task(task_id)), None)

    def add(self, found: FoundWorkload, engine: str) -> None:
        """`engine`: the name of the one that holds it."""
        key = found.task_id, found.attempt
        self._found[key], self._names[key] = found, engine

    def drop(self, key: Key) -> None:
        """It is no stray any more."""
        self._found.pop(key, None)
        self._names.pop(key, None)

    async def end(self, key: Key) -> None:
        """End it, as often as that takes; free if that is under way, or it is gone."""
        engine = self._engines.named(self._names.get(key, ""))
        if key in self._ending or engine is None:
            return
        self._ending.add(key)
        try:
            for seconds in growing_pauses():
                try:
                    with contextlib.suppress(NotFound):
                        await engine.stop(*key, intake.UNWANTED_GRACE_SECONDS)
                        await engine.remove(*key)
                    break
                except KohakuRiverError as error:
                    _log.warning("stray_not_ended", task_id=str(key[0]), attempt=key[1], error=str(error))
                    await asyncio.sleep(seconds)
            self.drop(key)
        finally:
            self._ending.discard(key)
