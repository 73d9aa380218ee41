"""How often something that made the host fail is told."""

from dataclasses import dataclass


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
