"""Work that several callers want at the same time is done once, and all of them get its result.

A caller that is cancelled leaves the work to the others; with the last caller the work is cancelled too.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Progress = Callable[[str], None]
_Result = TypeVar("_Result")


@dataclass(slots=True, eq=False)
class _Flight(Generic[_Result]):
    listeners: list[Progress] = field(default_factory=list)
    last_sentence: str | None = None
    task: "asyncio.Task[_Result]" = field(init=False)

    def report(self, sentence: str) -> None:
        self.last_sentence = sentence
        for listener in self.listeners:
            listener(sentence)


class SingleFlight(Generic[_Result]):
    """Owns the running works, by key; `close` ends them."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[_Result]] = {}

    async def run(
        self, key: str, work: Callable[[Progress], Awaitable[_Result]], on_progress: Progress
    ) -> _Result:
        """Start the work or join the one of that key; its progress goes to all who wait for it."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = self._start(key, work)
        elif flight.last_sentence:
            on_progress(flight.last_sentence)
        flight.listeners.append(on_progress)
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.listeners.remove(on_progress)
            if not flight.listeners and not flight.task.done():
                self._forget(key, flight)
                await _end(flight.task)

    async def close(self) -> None:
        """Cancel what runs and wait for its end; callers that wait see a cancellation."""
        for flight in list(self._flights.values()):
            await _end(flight.task)

    def _start(self, key: str, work: Callable[[Progress], Awaitable[_Result]]) -> _Flight[_Result]:
        flight: _Flight[_Result] = _Flight()

        async def fly() -> _Result:
            try:
                return await work(flight.report)
            finally:
                self._forget(key, flight)

        flight.task = asyncio.get_running_loop().create_task(fly(), name=f"image {key}")
        return flight

    def _forget(self, key: str, flight: _Flight[_Result]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


async def _end(task: "asyncio.Task[_Result]") -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # seen here: nobody else is left to look at it
