"""Whether the store can take in what it is given: a fault of its disk, and too little room for new work.

Rules: while the disk lets nothing be written, nothing is begun that would have to be; a small write each
second finds out when that is over, whether or not anybody asks for anything. While room is short, new work is
refused and nothing new is placed, and what is there may still be finished. New work says how large it is
before it is taken in, and what would reach into the reserve is refused.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import structlog

from kohakuriver.host.store.disk_space import DiskSpace, in_mib, shortage
from kohakuriver.host.store.store import Store
from kohakuriver.host.store.writes import put_meta
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.spec.size import bytes_of_all, spec_bytes
from kohakuriver.models.tasks import TaskSpec

log = structlog.get_logger()

LOOK_SECONDS = 1.0
_ROW_BYTES = 2048
"""What a task without its spec takes, with its history so far and its place in the indexes."""
_PROBE_KEY = "last_probe"
_PROBE_BYTES = 128 << 10
"""Less might find room where the next turn finds none, and the host would be ready and not ready by turns."""


class StoreWatch:
    """`fault` and `shortage` are sentences, or None; `room` is what was seen last.

    Run `run` beside the control loop.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.room: DiskSpace | None = None
        self._room_shortage: str | None = None
        self._claimed_bytes = 0
        self._landed_bytes = 0

    @property
    def shortage(self) -> str | None:
        if self._store.is_using_reserve:
            return f"the disk of the host's database is full: {self._store.location}; work can only be ended"
        return self._room_shortage

    @property
    def fault(self) -> str | None:
        return self._store.write_fault

    @property
    def holds_new_work(self) -> bool:
        return bool(self.fault or self.shortage)

    def check_new_work(self) -> None:
        """Raise Unavailable while new work cannot be taken in."""
        if self.fault:
            raise Unavailable(self.fault)
        if self.shortage:
            raise Unavailable(f"{self.shortage}; nothing was taken in; make room on it and try again")

    @contextmanager
    def room_for(self, specs: list[TaskSpec]) -> Iterator[None]:
        """Claim room for new tasks while they are being taken in; raises Unavailable if there is none."""
        self.check_new_work()
        size = written_bytes(specs)
        room, promised = self.room, self._claimed_bytes + self._landed_bytes
        if room is not None and room.free_bytes - promised - size < room.reserve_bytes:
            kept = f"the last {in_mib(room.reserve_bytes)} are kept for work that is there already"
            raise Unavailable(
                f"the disk of the host's database is too full for this: {self._store.location}, free space "
                f"on it {in_mib(room.free_bytes)}, wanted {in_mib(size)}; {kept}; nothing was taken in; make "
                "room on it, or submit less at once"
            )
        self._claimed_bytes += size
        try:
            yield
        finally:
            self._claimed_bytes -= size
            self._landed_bytes += size

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """See how much room there is, and try to write if the last write failed."""
        before, landed = self.shortage, self._landed_bytes
        try:
            self.room = await self._store.room()
            self._room_shortage = shortage(self._store.location, self.room)
            # What was written before the look is in its figure; what was written since is not.
            self._landed_bytes -= landed
            await self._set_room_aside(self.room)
        except OSError as error:
            log.warning("room_not_known", reason=str(error))
        if bool(before) != bool(self.shortage):
            log.warning("store_room_changed", shortage=self.shortage)
        if self.fault:
            try:
                await self._probe()
            except Unavailable as error:
                log.warning("store_still_not_writable", reason=str(error))
            else:
                log.info("store_writable_again")

    async def _probe(self) -> None:
        """Learn whether the store takes a piece as large as a turn's; raises Unavailable if it does not."""
        now = datetime.now(UTC).isoformat()
        for value in (now + " " * _PROBE_BYTES, now):
            await self._store.write(partial(put_meta, key=_PROBE_KEY, value=value), new_work=True)

    async def _set_room_aside(self, room: DiskSpace) -> None:
        """Set the last room aside (again) as soon as there is more than the reserve for it."""
        wanted = room.set_aside_bytes
        if wanted and room.free_bytes - wanted > room.reserve_bytes:
            await self._store.keep_reserve(wanted)


def written_bytes(specs: list[TaskSpec]) -> int:
    """What tasks of one submission take on the disk: each byte once in the log and once in the file."""
    first = spec_bytes(specs[0])
    own = bytes_of_all(specs) - first * len(specs) if len(specs) > 1 else 0
    return 2 * (first + max(own, 0) + _ROW_BYTES * len(specs))
