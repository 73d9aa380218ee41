"""Each call is taken once: the receiver's end of the numbers in a credential; pure, no input or output.

A receiver has an epoch, a random name that it makes anew with each of its processes and every five minutes,
and takes calls of only that epoch. Within it, it keeps for each process that calls the highest number that
it saw, and which of the 4,096 below were seen. Numbers come out of order, since calls run beside each other.

The caller learns the epoch from the refusal, which is proven like every answer, and calls again. So after
a restart of either end nothing that was recorded before it is taken, a call that somebody held back is good
for five minutes at most, and no clock and no store is needed. Only calls whose credential was proven may come
here.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar, cast

from kohakuriver.wire.trust.signing import Stamp

_T = TypeVar("_T")
WINDOW = 4096
MOST_SENDERS = 32
"""Processes of the peer within one epoch; with one more a new epoch begins."""
EPOCH_SECONDS = 300.0
_MASK = (1 << WINDOW) - 1


class Verdict(Enum):
    """What is to be done with a call: take it, have it made anew in this epoch, or refuse it."""

    TAKEN = "taken"
    OTHER_EPOCH = "other epoch"
    USED = "used"


@dataclass(slots=True)
class _Sender:
    highest: int = -1
    seen: int = 0
    kept: object = None

    def take(self, number: int) -> bool:
        if number > self.highest:
            gap = number - self.highest
            self.seen = ((self.seen << gap) & _MASK if gap < WINDOW else 0) | 1
            self.highest = number
            return True
        below = self.highest - number
        if below >= WINDOW or self.seen >> below & 1:
            return False
        self.seen |= 1 << below
        return True


class CallWindow:
    """The calls of one peer. `epoch` is the one in which calls are taken now."""

    def __init__(self) -> None:
        self.epoch = new_name()
        self._began: float | None = None
        self._senders: dict[str, _Sender] = {}

    def judge(self, stamp: Stamp, now: float) -> Verdict:
        """Judge a call whose credential was proven, and remember it. `now`: monotonic seconds."""
        if self._began is None:
            self._began = now
        full = stamp.sender not in self._senders and len(self._senders) >= MOST_SENDERS
        if full or now - self._began >= EPOCH_SECONDS:
            self.epoch, self._began, self._senders = new_name(), now, {}
        if stamp.epoch != self.epoch:
            return Verdict.OTHER_EPOCH
        sender = self._senders.setdefault(stamp.sender, _Sender())
        return Verdict.TAKEN if sender.take(stamp.number) else Verdict.USED

    def kept(self, sender: str, make: Callable[[], _T]) -> _T:
        """What was made once for a process whose call was taken, for as long as the epoch lasts."""
        known = self._senders[sender]
        if known.kept is None:
            known.kept = make()
        return cast("_T", known.kept)


class CallWindows:
    """The calls of many peers, each with an epoch of its own."""

    def __init__(self) -> None:
        self._windows: dict[str, CallWindow] = {}

    def of(self, node: str) -> CallWindow:
        """For a node that is enrolled. What a removed one sent stays on record: it may come back."""
        window = self._windows.get(node)
        if window is None:
            window = self._windows[node] = CallWindow()
        return window


def new_name() -> str:
    """A name that nobody else has and nobody can guess."""
    return secrets.token_urlsafe(16)
