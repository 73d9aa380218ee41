"""Requests and answers between a host and its runners, each of which may come late, twice or never.

Whoever asks waits for `PATIENCE_SECONDS`; what arrives after that still has its effect on the other side.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from kohakuriver.models.errors import KohakuRiverError, Unavailable
from support.model.virtual_time import VirtualLoop
from support.runner.machine_engine import Dead

PATIENCE_SECONDS = 15.0

Lane = tuple[str, bool]
"""A node, and whether the request goes from it to the host."""


class Fate(Enum):
    """What becomes of a request and of the answer to it."""

    ARRIVES = "arrives and is answered"
    LOST = "never arrives"
    LATE = "arrives when the network lets go of it"
    REPEATED = "arrives, and once more when the network lets go of the copy"
    ANSWER_LOST = "arrives, and the answer does not"
    ANSWER_LATE = "arrives, and the answer when the network lets go of it"


@dataclass
class Letter:
    """A request. `answers`: where its answer goes, None for a copy; `answer`: what is on its way back."""

    lane: Lane
    content: Any
    answers: "asyncio.Future[Any] | None"
    answer: Any = None


@dataclass
class LossyNetwork:
    """`serve`: what hands a request to whoever it is for. `fates`: for the next requests of a lane.

    `cut`: directions in which nothing comes through, requests and answers alike.
    """

    loop: VirtualLoop
    serve: Callable[[Lane, Any], Awaitable[Any]]
    cut: set[Lane] = field(default_factory=set)
    fates: dict[Lane, deque[Fate]] = field(default_factory=dict)
    late: list[Letter] = field(default_factory=list)
    _carried: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def ask(self, lane: Lane, content: Any) -> Any:
        """Return the answer; raises Unavailable if none comes in time, or what the other side raised."""
        answers: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._send(Letter(lane, content, answers))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await answers
        except TimeoutError as error:
            raise Unavailable("no answer came in time") from error

    def let_go(self, index: int) -> None:
        """Have a late letter arrive."""
        letter = self.late.pop(index % len(self.late))
        if letter.answer is not None:
            _put(letter)
        else:
            self._carry(letter, Fate.ARRIVES)

    def heal(self) -> None:
        """From now on everything arrives, what is late included."""
        self.cut.clear()
        self.fates.clear()
        while self.late:
            self.let_go(0)

    def close(self) -> None:
        for carrying in self._carried:
            carrying.cancel()

    def _send(self, letter: Letter) -> None:
        waiting = self.fates.get(letter.lane)
        fate = waiting.popleft() if waiting else Fate.ARRIVES
        if letter.lane in self.cut or fate is Fate.LOST:
            return
        if fate is Fate.LATE:
            self.late.append(letter)
            return
        if fate is Fate.REPEATED:
            self.late.append(Letter(letter.lane, letter.content, None))
        self._carry(letter, fate)

    def _carry(self, letter: Letter, fate: Fate) -> None:
        """Not awaited by who asked: a handler goes on when its caller has left."""
        carrying = self.loop.create_task(self._handle(letter, fate))
        self._carried.add(carrying)
        carrying.add_done_callback(self._carried.discard)

    async def _handle(self, letter: Letter, fate: Fate) -> None:
        try:
            letter.answer = await self.serve(letter.lane, letter.content)
        except KohakuRiverError as error:
            letter.answer = error
        except (Dead, asyncio.CancelledError):
            return  # who was asked died over it
        if fate is Fate.ANSWER_LATE:
            self.late.append(letter)
        elif fate is not Fate.ANSWER_LOST and (letter.lane[0], not letter.lane[1]) not in self.cut:
            _put(letter)


def _put(letter: Letter) -> None:
    if letter.answers is None or letter.answers.done():
        return
    if isinstance(letter.answer, Exception):
        letter.answers.set_exception(letter.answer)
    else:
        letter.answers.set_result(letter.answer)
