"""When each token was last used: noted in memory with every request, written now and then and at the end."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog

from kohakuriver.host.store import writes
from kohakuriver.host.store.records import TokenRow
from kohakuriver.host.store.store import Store
from kohakuriver.models.errors import KohakuRiverError

_PAUSE_SECONDS = 60.0
"""What a host that is killed forgets of it at most."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class KnownToken:
    """A token as its owner is shown it. `number` names it to people, `id` in the audit log."""

    number: int
    id: str
    name: str
    role: str
    created_at: datetime
    last_used: datetime | None


class TokenUses:
    """Used only from the event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last: dict[str, datetime] = {}
        self._unwritten: set[str] = set()

    def note(self, token_id: str) -> None:
        """Note that it was used just now; `""` is no token."""
        if not token_id:
            return
        self._last[token_id] = datetime.now(UTC)
        self._unwritten.add(token_id)

    def known(self, token: TokenRow) -> KnownToken:
        last = self._last.get(token.id, token.last_used)
        return KnownToken(token.number, token.id, token.name, token.role.name.lower(), token.created_at, last)

    def forget(self, token_ids: set[str]) -> None:
        """For tokens that are deleted."""
        self._unwritten -= token_ids
        for token_id in token_ids:
            self._last.pop(token_id, None)

    async def run(self) -> None:
        """Write until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(_PAUSE_SECONDS)
                await self._write()
        finally:
            await asyncio.shield(self._write())

    async def _write(self) -> None:
        uses = {token_id: self._last[token_id] for token_id in self._unwritten}
        self._unwritten = set()
        if not uses:
            return
        try:
            await self._store.write(partial(writes.put_uses, uses=uses))
        except KohakuRiverError as error:
            self._unwritten |= uses.keys() & self._last.keys()
            log.warning("uses_of_tokens_not_written", reason=str(error))
