"""What the host asks of its store, whichever that is. `open_store` of the store's own room makes one.

`write` runs changes one after the other, each in a transaction, and `read` runs queries beside them. What a
write raises was rolled back: nothing of it is in the store.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from kohakuriver.host.store.disk_space import DiskSpace, StoreSize
from kohakuriver.models.errors import Unavailable

_T = TypeVar("_T")


class DiskFault(Unavailable):
    """The disk or the file of the database does not let it be written."""


class NewWorkRefused(Unavailable):
    """The disk is full, and the room that is left is kept for ending work."""


class Store(Protocol):
    """Where the host's state is kept. `write` and `read` run a function on a connection."""

    @property
    def location(self) -> str:
        """Where it lies, as sentences say it."""

    @property
    def write_fault(self) -> str | None:
        """Why the newest write failed, if that was the disk's fault; None once one succeeds."""

    @property
    def is_using_reserve(self) -> bool:
        """Whether the room that was set aside is being used: what there is is only for ending work."""

    async def write(self, change: Callable[[Connection], _T], *, new_work: bool = False) -> _T:
        """Run `change` in one transaction; raises Unavailable if it cannot commit.

        On a full disk it may be run again, in the room that was kept for that; `new_work` is not.
        """

    async def read(self, query: Callable[[Connection], _T]) -> _T:
        """Run `query` on committed rows; raises Unavailable if they cannot be read."""

    async def room(self) -> DiskSpace:
        """Look at the disk below; raises OSError."""

    async def keep_reserve(self, size_bytes: int) -> None:
        """Set room aside for what ends work; raises OSError where there is none."""

    def size(self) -> StoreSize:
        """Look how large it is; blocks. Raises OSError when the disk cannot be asked."""

    def close(self) -> None:
        """Wait for what is under way, then let go of it."""
