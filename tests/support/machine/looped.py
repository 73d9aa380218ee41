"""Something that lives in an event loop, for tests that are no coroutines themselves."""

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

from support.machine.time_limit import ends_soon

_T = TypeVar("_T")


class Looped(Generic[_T]):
    """Opens the context in a loop of its own, which turns while `run` does and no longer. Close it."""

    def __init__(self, context: AbstractAsyncContextManager[_T]) -> None:
        self._loop = asyncio.new_event_loop()
        self._context = context
        self.inside: _T = self.run(context.__aenter__())

    def run(self, work: Coroutine[Any, Any, Any], seconds: float = 60) -> Any:
        with ends_soon(seconds):
            return self._loop.run_until_complete(work)

    def close(self) -> None:
        self.run(self._context.__aexit__(None, None, None))
        self._loop.close()
