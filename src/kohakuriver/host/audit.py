"""The audit lines of the host: who did what to what, from where, and what was refused.

Every line is the event `audit` of the logger `kohakuriver.audit`, written whatever LOG_LEVEL is, with the
fields `action`, `actor`, `token_id` (never the token), `object`, `detail`, `outcome`, `address` and `reason`.
What was done is always written. What was refused or failed is bounded, by its source and in all, since
strangers could otherwise fill the log: the rest is counted, and told once a minute.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import structlog

from kohakuriver.logging_setup import AUDIT_LOGGER
from kohakuriver.models.network.address_groups import address_group

NOBODY = "nobody"
"""The actor where no credential was valid."""
MOST_PER_SOURCE = 30
MOST_IN_ALL = 150
WINDOW_SECONDS = 60.0

_SHOWN_CHARACTERS = 300
_NAMED_SOURCES = 5
_log = structlog.get_logger(AUDIT_LOGGER)


class Outcome(Enum):
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """What somebody did or wanted to do. Texts may come from anybody; they are escaped and cut here."""

    action: str
    actor: str = NOBODY
    token_id: str = ""
    object: str = ""
    detail: str = ""
    address: str = ""
    reason: str = ""


class AuditLog:
    """One for the whole host; used only from its event loop."""

    def __init__(
        self,
        most_per_source: int = MOST_PER_SOURCE,
        most_in_all: int = MOST_IN_ALL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_per_source = most_per_source
        self._most_in_all = most_in_all
        self._clock = clock
        self._window_end = 0.0
        self._written: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
        self._left_out: Counter[str] = Counter()
        self._left_out_in_all = 0
        self._telling: asyncio.TimerHandle | None = None

    def record(self, event: AuditEvent, outcome: Outcome) -> None:
        """Write the line, or count it if its source has had its share of lines about what did not happen."""
        if outcome is not Outcome.DONE and not self._has_room(event):
            return
        _log.info(
            "audit",
            action=event.action,
            actor=_shown(event.actor),
            token_id=event.token_id,
            object=_shown(event.object),
            detail=_shown(event.detail),
            outcome=outcome.value,
            address=_shown(event.address),
            reason=_shown(event.reason),
        )

    def tell_left_out(self) -> None:
        """Write how many lines were left out since the last time, and of whom most were."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if self._left_out_in_all:
            _log.info(
                "audit_left_out",
                lines=self._left_out_in_all,
                sources=[source for source, _ in self._left_out.most_common(_NAMED_SOURCES)],
            )
        self._left_out.clear()
        self._left_out_in_all = 0

    def _has_room(self, event: AuditEvent) -> bool:
        now = self._clock()
        if now >= self._window_end:
            self.tell_left_out()
            for counts in self._written.values():
                counts.clear()
            self._window_end = now + WINDOW_SECONDS
        is_stranger = event.actor == NOBODY
        source = address_group(event.address) if is_stranger else _shown(event.actor)
        # Strangers have a share of their own: they could hide what somebody with an account tries.
        written = self._written[is_stranger]
        if written.total() < self._most_in_all and written[source] < self._most_per_source:
            written[source] += 1
            return True
        self._left_out_in_all += 1
        # Sources are as many as a stranger has addresses, so only some of them are kept.
        if source in self._left_out or len(self._left_out) < self._most_in_all:
            self._left_out[source] += 1
        if self._telling is None:
            left = max(0.0, self._window_end - now)
            self._telling = asyncio.get_running_loop().call_later(left, self.tell_left_out)
        return False


def _shown(text: str) -> str:
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    if cut.isprintable():
        return cut
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)
