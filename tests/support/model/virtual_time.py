"""An event loop whose time passes only when somebody says so, and then at once: hours cost milliseconds, and
the same calls give the same order of events."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class _Jumping(selectors.DefaultSelector):
    """Instead of waiting for a timer it moves time on to it; while `held`, it ends the loop's run."""

    loop: "VirtualLoop"
    now = 0.0
    held = True

    def select(self, timeout: float | None = None) -> list[Any]:
        events = super().select(0)
        if not events and timeout != 0:
            if self.held or timeout is None:
                self.loop.stop()
            else:
                self.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """Nothing in it may wait for a thread or a socket."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        self._jumping.loop = self
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def let_time_pass(self) -> None:
        """From here on until it settles again, for what waits inside."""
        self._jumping.held = False

    def settle(self) -> None:
        """Do all that can be done without time passing."""
        self._jumping.held = True
        self.run_forever()

    def advance(self, seconds: float) -> None:
        """Let time pass, with all that happens in it, and settle."""
        self.let_time_pass()
        self.call_later(seconds, self.stop)
        self.run_forever()
        self.settle()

    def do(self, work: Coroutine[Any, Any, _T]) -> "asyncio.Task[_T]":
        """Begin something, settle, and return its task, which may not be done."""
        task = self.create_task(work)
        self.settle()
        return task
