"""The user's terminal joined to a shell in an environment's container."""

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kohakuriver.cli.following import write_all
from kohakuriver.models.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from kohakuriver.client.terminal import Terminal

_READ_BYTES = 65536


def environment_shell(url: str, token: str | None, name: str) -> None:
    """Run until the shell ends; raises InvalidInput where standard input and output are no terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidInput("a shell needs a terminal on standard input and output")
    from kohakuriver.client.terminal import environment_terminal

    with environment_terminal(url, token, name) as terminal, _raw_mode(), _Input(terminal):
        for data in terminal.output():
            write_all(1, data)


class _Input:
    """Sends what is typed and the size of the window, in a thread, until it is left.

    A pipe wakes the thread for both: a byte `w` when the window changed, the end of the pipe to end.
    """

    def __init__(self, terminal: "Terminal") -> None:
        self._terminal = terminal
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._send, name="terminal input", daemon=True)
        self._before: object = None

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGWINCH, lambda *_: os.write(self._wake_write, b"w"))
        os.write(self._wake_write, b"w")
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGWINCH, self._before)  # type: ignore[arg-type]
        os.close(self._wake_write)
        self._thread.join()
        os.close(self._wake_read)

    def _send(self) -> None:
        try:
            while True:
                ready, _, _ = select.select([0, self._wake_read], [], [])
                if self._wake_read in ready:
                    if not os.read(self._wake_read, 64):
                        return
                    size = os.get_terminal_size(0)
                    self._terminal.resize(size.lines, size.columns)
                if 0 in ready:
                    typed = os.read(0, _READ_BYTES)
                    if not typed:
                        return
                    self._terminal.send(typed)
        except Unavailable:
            return  # the reader of the output meets the same end and reports it


@contextmanager
def _raw_mode() -> Iterator[None]:
    import termios
    import tty

    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # keeps what was typed ahead
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
