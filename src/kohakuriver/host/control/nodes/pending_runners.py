"""Runners that wait for an administrator's word, and how much of the host strangers can take up by asking.

Kept in memory beside the rows in the store: where each asks from and when it asked last. So who does not ask
any more can be let go of, and when there are too many, it is one of the address that has most. Whoever was
refused stays so for a day, or until the host starts again.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable

from kohakuriver.host.store.records import EnrolmentRow
from kohakuriver.models.errors import TooMany

MAX_WAITING = 1000
MAX_WAITING_PER_ADDRESS = 100
SILENT_SECONDS = 3600.0
_REFUSED_SECONDS = 24 * 3600.0
_MAX_REFUSED = 1000
_MAX_BUCKETS = 4096


class _Bucket:
    """So many at once, then so many a second."""

    def __init__(self, burst: float, per_second: float, now: float) -> None:
        self._burst, self._rate = burst, per_second
        self._left, self._at = burst, now

    def take(self, now: float) -> bool:
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class PendingRunners:
    """Addresses are groups of them (`models.network.address_groups`). Used only from the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._asked: dict[str, tuple[str, float]] = {}
        self._refused: OrderedDict[str, float] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._all = _Bucket(256, 20, self._began)

    def check_rate(self, address: str) -> None:
        """Raise TooMany if so much from there, or in all, has come to the control loop already."""
        now = self._clock()
        bucket = self._buckets.pop(address, None) or _Bucket(32, 1, now)
        self._buckets[address] = bucket
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if not (bucket.take(now) and self._all.take(now)):
            raise TooMany("too many runners ask to be let in at once; this one is to ask again later")

    def note(self, fingerprint: str, address: str) -> None:
        """Take note that this one asks."""
        self._asked[fingerprint] = (address, self._clock())

    def forget(self, fingerprint: str) -> None:
        self._asked.pop(fingerprint, None)

    def refuse(self, fingerprint: str) -> None:
        self.forget(fingerprint)
        self._refused[fingerprint] = self._clock()
        if len(self._refused) > _MAX_REFUSED:
            self._refused.popitem(last=False)

    def is_refused(self, fingerprint: str) -> bool:
        at = self._refused.get(fingerprint)
        return at is not None and self._clock() - at < _REFUSED_SECONDS

    def in_the_way(self, waiting: Iterable[EnrolmentRow], address: str) -> list[str]:
        """Fingerprints of those that must go for one more from `address` to wait."""
        rows = list(waiting)
        counts = Counter(self._address(row) for row in rows)
        if counts[address] >= MAX_WAITING_PER_ADDRESS:
            crowded = address
        elif len(rows) >= MAX_WAITING:
            crowded = counts.most_common(1)[0][0]
        else:
            return []
        theirs = [row for row in rows if self._address(row) == crowded]
        return [min(theirs, key=self._asked_at).fingerprint]

    def gone_silent(self, waiting: Iterable[EnrolmentRow]) -> list[str]:
        """Fingerprints of those that have not asked for long."""
        before = self._clock() - SILENT_SECONDS
        return [row.fingerprint for row in waiting if self._asked_at(row) < before]

    def keep_only(self, waiting: Iterable[EnrolmentRow]) -> None:
        """Forget all others."""
        kept = {row.fingerprint for row in waiting}
        self._asked = {name: asked for name, asked in self._asked.items() if name in kept}

    def _address(self, row: EnrolmentRow) -> str:
        return self._asked.get(row.fingerprint, ("", 0.0))[0]

    def _asked_at(self, row: EnrolmentRow) -> float:
        """Of those that waited when this host started nothing is known before that."""
        return self._asked.get(row.fingerprint, ("", self._began))[1]
