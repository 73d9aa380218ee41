"""Time as the control loop sees it, in one place, so that tests can move it."""

import time
from datetime import UTC, datetime


class Clock:
    """`now` is for records and may jump; `monotonic` (seconds) is for timeouts and never does."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()
