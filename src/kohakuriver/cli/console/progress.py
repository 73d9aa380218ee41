"""One line on standard error that says what is going on; on a terminal only, and gone when it is over."""

import itertools
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kohakuriver.cli.console.plain_text import neutralised

_FRAMES = "|/-\\"
_FRAME_SECONDS = 0.2
_CLEAR_LINE = "\r\x1b[K"


class StatusLine:
    """A line that is replaced in place; whoever else writes to the terminal calls `clear` first."""

    def __init__(self) -> None:
        self._shown = ""
        self._lock = threading.Lock()
        self._enabled = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def show(self, text: str) -> None:
        with self._lock:
            text = neutralised(text)[: self._columns() - 1]
            if self._enabled and text != self._shown:
                self._write(_CLEAR_LINE + text)
                self._shown = text

    def clear(self) -> None:
        with self._lock:
            if self._shown:
                self._write(_CLEAR_LINE)
                self._shown = ""

    def _columns(self) -> int:
        """Width of the terminal; some say 0 while they do not know it."""
        return (os.get_terminal_size(sys.stderr.fileno()).columns if self._enabled else 0) or 80

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


class Progress:
    """The step that long work is at, with a sign of life and the time that it takes."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._began = time.monotonic()
        self._over = threading.Event()
        self._line = StatusLine()
        self._thread = threading.Thread(target=self._draw, name="progress", daemon=True)

    def step(self, text: str) -> None:
        self._step = text

    def clear(self) -> None:
        """Take the line away for a moment, so that other text can be written."""
        self._line.clear()

    def _draw(self) -> None:
        for frame in itertools.cycle(_FRAMES):
            self._line.show(f"{frame} {self._step} ({time.monotonic() - self._began:.0f} s)")
            if self._over.wait(_FRAME_SECONDS):
                break
        self._line.clear()

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()


@contextmanager
def progress(step: str) -> Iterator[Progress]:
    """Show `step` while the body runs."""
    shown = Progress(step)
    shown.start()
    try:
        yield shown
    finally:
        shown.end()
