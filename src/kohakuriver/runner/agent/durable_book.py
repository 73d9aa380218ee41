"""The book and the journal under it: what is written here is in both, and durable when the call returns."""

import asyncio
import contextlib
from pathlib import Path

import structlog

from kohakuriver.pauses import growing_pauses
from kohakuriver.runner.agent.book import Book
from kohakuriver.runner.agent.journal import Journal, JournalFault
from kohakuriver.runner.agent.records import Record

_RETRY_LIMIT_SECONDS = 5.0
MEND_SECONDS = 2.0
_log = structlog.get_logger(__name__)


class DurableBook:
    """Open it once, write from one event loop, close it at the end."""

    def __init__(self, path: Path) -> None:
        """Read the journal at `path`; raises InvalidInput if it is of another version."""
        self.book = Book()
        self._journal = Journal(path, self.book.records)
        for record in self._journal.load():
            self.book.apply(record)

    @property
    def fault(self) -> str | None:
        """Why nothing can be written now."""
        return self._journal.fault

    async def write(self, *records: Record) -> None:
        """Make facts part of the book, and durable; raises JournalFault if they may not be durable."""
        for record in records:
            self.book.apply(record)
        await self.persist(*records)

    async def persist(self, *records: Record) -> None:
        """Make facts durable that the caller has put into the book; raises JournalFault."""
        await self._journal.append(*records)

    async def write_surely(self, *records: Record) -> None:
        """Like `write`, but try until it has worked (a full disk may be cleared)."""
        try:
            await self.write(*records)
        except JournalFault as error:
            _log.error("journal_not_written", error=str(error))
            await self._rewrite_until_done()

    async def mend(self) -> None:
        """Run for ever: while nothing can be written, try again, for perhaps nobody else would."""
        while True:
            await asyncio.sleep(MEND_SECONDS)
            if self._journal.fault:
                with contextlib.suppress(JournalFault):
                    await self._journal.rewrite()
                    _log.info("journal_written_again")

    def close(self) -> None:
        self._journal.close()

    async def _rewrite_until_done(self) -> None:
        for seconds in growing_pauses(limit_seconds=_RETRY_LIMIT_SECONDS):
            await asyncio.sleep(seconds)
            try:
                await self._journal.rewrite()
            except JournalFault:
                continue
            return
