"""Breaking a loop that never ends, wherever it is: a hang is a failure, and not the end of a whole run."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE_SECONDS = 20.0


@contextmanager
def ends_soon(seconds: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Raise AssertionError in what still runs after that time. Only of the main thread."""

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"it still ran after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    outer, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        # pytest's own limit uses the same alarm; what is left of it goes on.
        signal.setitimer(signal.ITIMER_REAL, outer)
        signal.signal(signal.SIGALRM, before)
