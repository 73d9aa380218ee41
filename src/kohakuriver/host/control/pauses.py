"""How long something that made the host fail is left alone, and how often that is told."""

from dataclasses import dataclass

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 30.0


@dataclass(slots=True)
class Pause:
    """Doubles with each failure. Times are monotonic seconds."""

    seconds: float = 0.0
    until: float = 0.0

    def grow(self, now: float) -> None:
        self.seconds = min(max(self.seconds * 2, FIRST_SECONDS), LONGEST_SECONDS)
        self.until = now + self.seconds

    def holds(self, now: float) -> bool:
        return now < self.until


@dataclass(slots=True)
class Allowance:
    """So many of a kind in a stretch of time; what goes beyond is counted."""

    most: int
    seconds: float
    began: float = 0.0
    used: int = 0
    beyond: int = 0

    def take(self, now: float) -> bool:
        """Tell whether there is room for one more."""
        if now - self.began >= self.seconds:
            self.began, self.used = now, 0
        if self.used >= self.most:
            self.beyond += 1
            return False
        self.used += 1
        return True
