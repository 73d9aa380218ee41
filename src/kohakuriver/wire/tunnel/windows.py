"""Credit: how many bytes the other end may still send on one stream.

Rules: `allowed + held + owed` is the window's size at all times. More is given only for what the reader took,
and in portions of half a window, so that there is one WINDOW for many frames. A window doubles where its
reader keeps up, out of a budget that all streams of an end share; the first size is no part of that budget.
Beyond the usual size it grows out of the budget's first half only, so that a few large ones leave enough.
"""

from typing import Final

FIRST_WINDOW_BYTES: Final = 32 << 10
"""What each direction of each stream begins with, at both ends."""
USUAL_WINDOW_BYTES: Final = 1 << 20
LARGEST_WINDOW_BYTES: Final = 2 << 20
MAX_CREDIT_BYTES: Final = 1 << 30
"""What an end lets itself be given; it is far above what any end gives."""


class GrowthBudget:
    """Bytes by which the windows of one end may be larger than the first ones, all together."""

    __slots__ = ("_half_bytes", "left_bytes")

    def __init__(self, size_bytes: int) -> None:
        self.left_bytes = size_bytes
        self._half_bytes = size_bytes // 2

    def take(self, amount: int) -> bool:
        """Return whether a window of that size may double."""
        kept = self._half_bytes if amount >= USUAL_WINDOW_BYTES else 0
        if amount + kept > self.left_bytes:
            return False
        self.left_bytes -= amount
        return True

    def give_back(self, amount: int) -> None:
        self.left_bytes += amount


class ReceiveWindow:
    """What came in on one stream and what may come."""

    __slots__ = ("_budget", "allowed", "held", "owed", "size")

    def __init__(self, budget: GrowthBudget) -> None:
        self._budget = budget
        self.size = self.allowed = FIRST_WINDOW_BYTES
        self.held = 0
        """Came in, and the reader has not taken it."""
        self.owed = 0
        """Was taken, and not given again yet."""

    def receive(self, amount: int) -> bool:
        """Return whether that much was allowed."""
        if amount > self.allowed:
            return False
        self.allowed -= amount
        self.held += amount
        return True

    def take(self, amount: int) -> int:
        """The reader has taken so much; return how much more the other end may send, mostly nothing yet."""
        self.held -= amount
        self.owed += amount
        if self.owed * 2 < self.size:
            return 0
        given = self.owed
        # A reader that leaves less than a quarter lying is not what holds the sender back.
        if self.held * 4 <= self.size < LARGEST_WINDOW_BYTES and self._budget.take(self.size):
            given += self.size
            self.size *= 2
        self.owed = 0
        self.allowed += given
        return given

    def close(self) -> None:
        self._budget.give_back(self.size - FIRST_WINDOW_BYTES)
        self.size = FIRST_WINDOW_BYTES
