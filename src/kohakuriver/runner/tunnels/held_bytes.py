"""What waits in all outer tunnels of a runner: its bound, and the memory that a burst of it leaves behind."""

import asyncio
import contextlib
import ctypes
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from kohakuriver.models.ids import TaskId

_BURST_BYTES: Final = 2 << 20
_CALM_SECONDS: Final = 2.0


class Holder(Protocol):
    """A tunnel for which something waits."""

    task_id: TaskId
    held_bytes: int

    def end_unread(self) -> None: ...


def give_freed_memory_back() -> None:
    """Freed frames lie between what lives on, where the C library keeps them until it is asked."""
    with contextlib.suppress(AttributeError):  # of a C library that keeps nothing
        ctypes.CDLL(None).malloc_trim(0)


class HeldBytes:
    """What waits for all outer tunnels of a runner; where that is too much, one ends.

    It is the one with the most, of the workload for which most waits: many that hold little each have none of
    another workload ended.

    A tunnel is in here from its beginning until it is closed, as what waits for it may be read after its end.
    Once nothing waits any more after a burst, the memory that it took is given back.
    """

    def __init__(
        self, limit_bytes: int = 64 << 20, give_back: Callable[[], None] = give_freed_memory_back
    ) -> None:
        self._limit_bytes = limit_bytes
        self._give_back = give_back
        self.total_bytes = 0
        self._tunnels: set[Holder] = set()
        self._was_burst = False
        self._calm: asyncio.TimerHandle | None = None

    def join(self, tunnel: Holder) -> None:
        self._tunnels.add(tunnel)

    def leave(self, tunnel: Holder) -> None:
        self._tunnels.discard(tunnel)

    def add(self, amount: int) -> None:
        self.total_bytes += amount
        if self.total_bytes > _BURST_BYTES:
            self._was_burst = True
        if self.total_bytes > self._limit_bytes:
            self._heaviest().end_unread()

    def _heaviest(self) -> Holder:
        of_workloads: Counter[TaskId] = Counter()
        for tunnel in self._tunnels:
            of_workloads[tunnel.task_id] += tunnel.held_bytes
        return max(self._tunnels, key=lambda tunnel: (of_workloads[tunnel.task_id], tunnel.held_bytes))

    def take(self, amount: int) -> None:
        self.total_bytes -= amount
        if self._was_burst and self._calm is None and not self.total_bytes:
            self._calm = asyncio.get_running_loop().call_later(_CALM_SECONDS, self._be_calm)

    def _be_calm(self) -> None:
        self._calm = None
        if not self.total_bytes:
            self._was_burst = False
            self._give_back()
