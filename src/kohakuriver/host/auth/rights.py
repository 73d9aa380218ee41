"""What stays open because somebody has a right to it, and how it ends when that right does.

Whatever lasts (a followed answer, a WebSocket, an SSH connection and what it carries) is held here with a
check, which says why it may not go on, or None. All checks are asked when somebody may have lost a right,
whatever the reason was, and what may not go on is closed with that sentence.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

log = structlog.get_logger()

Check = Callable[[], str | None]
Close = Callable[[str], None]


@dataclass(eq=False, slots=True)
class _Held:
    check: Check
    close: Close


class Rights:
    """Used only from the event loop. Checks are asked in the order in which they were put in."""

    def __init__(self) -> None:
        self._held: dict[_Held, None] = {}

    @contextmanager
    def held(self, check: Check, close: Close) -> Iterator[None]:
        """Have `close` called, once at most, as soon as the check says why; it is asked now as well.

        Neither waits for anything, and `close` raises nothing.
        """
        held = _Held(check, close)
        self._held[held] = None
        try:
            self._look(held)
            yield
        finally:
            self._held.pop(held, None)

    async def lost(self, check: Check) -> str:
        """Wait until the check says why."""
        reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def close(sentence: str) -> None:
            if not reason.done():
                reason.set_result(sentence)

        with self.held(check, close):
            return await reason

    def look_again(self) -> None:
        """Ask all checks, because somebody may have lost a right."""
        for held in tuple(self._held):
            if held in self._held:
                self._look(held)

    def _look(self, held: _Held) -> None:
        try:
            reason = held.check()
        except Exception:
            log.exception("right_not_known")
            reason = "the host failed; see its log"
        if reason is not None:
            self._held.pop(held, None)
            held.close(reason)
