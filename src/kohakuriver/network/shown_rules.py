"""What `nft` showed, kept for as long as the kernel's rules are the same.

A number of the kernel's tells that (`netlink_facts`). Where it cannot be had, nothing is kept.
"""

from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar, cast

from kohakuriver.network import netlink_facts

_T = TypeVar("_T")


class ShownRules:
    """One per network namespace; not to be used beside itself."""

    def __init__(self) -> None:
        self._generation: int | None = None
        self._shown: dict[Hashable, Any] = {}

    async def get(self, what: Hashable, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Return what `ask` told last, or tells now; what it raises is not kept."""
        # Before it is asked: a change in the meantime is a change afterwards.
        generation = _generation()
        if generation is None or generation != self._generation:
            self._shown.clear()
            self._generation = generation
        if what in self._shown:
            return cast(_T, self._shown[what])
        shown = await ask()
        if generation is not None:
            self._shown[what] = shown
        return shown


def _generation() -> int | None:
    try:
        return netlink_facts.rules_generation()
    except OSError:
        return None
