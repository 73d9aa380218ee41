"""Whether the store can take in what it is given: a fault of its disk, and too little room for new work.

Rules: while the disk lets nothing be written, nothing is begun that would have to be; a small write each
second finds out when that is over, whether or not anybody asks for anything. While room is short, new work is
refused and nothing new is placed, and what is there may still be finished.
"""

import asyncio

import structlog

from kohakuriver.host.store.disk_faults import shortage
from kohakuriver.host.store.store import Store
from kohakuriver.models.errors import Unavailable

log = structlog.get_logger()

LOOK_SECONDS = 1.0


class StoreWatch:
    """`fault` and `shortage` are sentences, or None. Run `run` beside the control loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.shortage: str | None = None

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

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """See how much room there is, and try to write if the last write failed."""
        before = self.shortage
        try:
            self.shortage = shortage(self._store.db_file, await self._store.room())
        except OSError as error:
            log.warning("room_not_known", reason=str(error))
        if bool(before) != bool(self.shortage):
            log.warning("store_room_changed", shortage=self.shortage)
        if self.fault:
            try:
                await self._store.probe()
            except Unavailable as error:
                log.warning("store_still_not_writable", reason=str(error))
            else:
                log.info("store_writable_again")
