"""The engines of a node, each opened by itself: one that is down keeps nobody from the work of the others."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from kohakuriver.models.abilities import LACKS, Ability
from kohakuriver.models.errors import InvalidInput, KohakuRiverError, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.pauses import growing_pauses
from kohakuriver.runner.engines.contract.abilities import ANNOUNCED
from kohakuriver.runner.engines.contract.engine import Engine, FoundWorkload

Opener = Callable[[], Awaitable[Engine]]
"""Gives an engine that is ready; it is called again after any error but InvalidInput."""
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Place:
    opener: Opener
    fault: str
    engine: Engine | None = None


class Engines:
    """`openers` by the names of the engines; `name_of` tells which of them a task has.

    For each: `prepare`, then `admit` what that gave. Until then it is not open to anybody.
    """

    def __init__(self, openers: Mapping[str, Opener], name_of: Callable[[TaskId], str]) -> None:
        self._places = {
            name: _Place(opener, f"the {name} engine is not open yet") for name, opener in openers.items()
        }
        self._name_of = name_of

    @property
    def names(self) -> list[str]:
        return list(self._places)

    @property
    def all_are_open(self) -> bool:
        return all(place.engine is not None for place in self._places.values())

    def of(self, task_id: TaskId) -> Engine:
        """What runs the workloads of a task; raises Unavailable before it is open."""
        name = self._name_of(task_id)
        place = self._places.get(name)
        if place is None:
            raise Unavailable(f"this runner does not have the {name} engine, which task {task_id} needs")
        if place.engine is None:
            raise Unavailable(place.fault)
        return place.engine

    def named(self, name: str) -> Engine | None:
        """The engine of this name, if it is open."""
        place = self._places.get(name)
        return place.engine if place is not None else None

    def all(self) -> list[Engine]:
        """Those that are open; raises Unavailable while none is."""
        if not (engines := list(self.by_name().values())):
            raise Unavailable("; ".join(self.faults()))
        return engines

    def by_name(self) -> dict[str, Engine]:
        """Those that are open."""
        return {name: place.engine for name, place in self._places.items() if place.engine is not None}

    def faults(self) -> list[str]:
        """Sentences about what does not work now, of those that are not open too."""
        faults: list[str] = []
        for place in self._places.values():
            faults.extend([place.fault] if place.fault else [])
            faults.extend(place.engine.faults() if place.engine is not None else [])
        return faults

    def lacks(self) -> dict[Ability, str]:
        """What work may need and no engine here can do, each with words that follow the node's name.

        Nothing before all are open: the one that is missing may be the one that can.
        """
        if not self.all_are_open:
            return {}
        lacking = [engine.abilities.lacking for engine in self.by_name().values()]
        return {
            ability: f"{LACKS[ability]}: {'; '.join(each[of_engine] for each in lacking)}"
            for of_engine, ability in ANNOUNCED.items()
            if all(of_engine in each for each in lacking)
        }

    async def prepare(self, name: str) -> tuple[Engine, list[FoundWorkload]]:
        """Open it and look what it holds, as often as that takes.

        Raises InvalidInput for settings that cannot work.
        """
        engine = await self._opened(name)
        pauses = growing_pauses()
        while True:
            try:
                return engine, await engine.list_workloads()
            except KohakuRiverError as error:
                _log.error("engine_not_listed", engine=name, error=str(error))
                self._places[name].fault = str(error)
            await asyncio.sleep(next(pauses))

    def admit(self, name: str, engine: Engine) -> None:
        """Have it used from now on."""
        self._places[name].engine, self._places[name].fault = engine, ""

    async def _opened(self, name: str) -> Engine:
        place = self._places[name]
        pauses = growing_pauses(1.0)
        while True:
            try:
                return await place.opener()
            except InvalidInput:
                raise  # only the owner of the settings can change them
            except (KohakuRiverError, OSError) as error:
                if str(error) != place.fault:
                    _log.error("engine_unavailable", engine=name, error=str(error))
                place.fault = str(error)
            await asyncio.sleep(next(pauses))
