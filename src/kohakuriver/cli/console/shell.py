"""The user's terminal joined to one elsewhere: what is typed, its size, and what the other end writes."""

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from kohakuriver.descriptors import write_all
from kohakuriver.models.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from kohakuriver.client.connection.host_trust import HostAccess
    from kohakuriver.client.streams.terminal import Terminal

_READ_BYTES = 65536
_PULSE_SECONDS = 15.0


def environment_shell(access: "HostAccess", name: str) -> int:
    """Run until the shell ends and return its exit status, 0 where the host does not tell it."""
    check_terminal()
    from kohakuriver.client.streams.terminal import environment_terminal

    with environment_terminal(access, name) as terminal, raw_mode(), TerminalInput(terminal):
        for _, data in terminal.output():
            write_all(1, data)
    return terminal.status or 0


def check_terminal() -> None:
    """Raise InvalidInput where standard input and output are no terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidInput("a shell needs a terminal on standard input and output")


def window_size() -> tuple[int, int]:
    """Rows and columns of the user's terminal."""
    size = os.get_terminal_size(0)
    return size.lines, size.columns


class Escape:
    """Finds `~.` at the beginning of a line, which means to leave; `~~` there stands for one `~`."""

    def __init__(self) -> None:
        self._at_line_start = True
        self._is_held = False
        self.means_to_leave = False

    def pass_on(self, typed: bytes) -> bytes:
        """Return what of it is for the other end; nothing after the escape is."""
        passed = bytearray()
        for byte in typed:
            if self._is_held:
                self._is_held = False
                if byte == ord("."):
                    self.means_to_leave = True
                    break
                passed += b"~" if byte == ord("~") else bytes([ord("~"), byte])
            elif byte == ord("~") and self._at_line_start:
                self._is_held = True
                continue
            else:
                passed.append(byte)
            self._at_line_start = byte in b"\r\n"
        return bytes(passed)


class TerminalInput:
    """Sends standard input and the size of the window, in a thread, until it is left; then hangs up.

    A pipe wakes the thread for both: a byte `w` when the window changed, the end of the pipe to end.
    `reads`: whether standard input is for the other end; `has_window`: whether it has a terminal.
    """

    def __init__(
        self,
        terminal: "Terminal",
        escape: Escape | None = None,
        *,
        reads: bool = True,
        has_window: bool = True,
    ) -> None:
        self._terminal = terminal
        self._escape = escape
        self._sources = [0] if reads else []
        self._has_window = has_window
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._send, name="terminal input", daemon=True)
        self._before: object = None

    def __enter__(self) -> Self:
        if self._has_window:
            self._before = signal.signal(signal.SIGWINCH, lambda *_: os.write(self._wake_write, b"w"))
            os.write(self._wake_write, b"w")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._has_window:
            signal.signal(signal.SIGWINCH, self._before)  # type: ignore[arg-type]
        os.close(self._wake_write)
        self._terminal.hang_up()  # the thread may be held back in the middle of a piece
        self._thread.join()
        os.close(self._wake_read)

    def _send(self) -> None:
        try:
            while True:
                ready, _, _ = select.select([*self._sources, self._wake_read], [], [], _PULSE_SECONDS)
                if not ready:
                    self._terminal.feel_pulse()
                if self._wake_read in ready:
                    if not os.read(self._wake_read, 64):
                        return
                    self._terminal.resize(*window_size())
                if 0 in ready and not self._send_piece():
                    return
        except Unavailable:
            return  # the reader of the output meets the same end and reports it

    def _send_piece(self) -> bool:
        """Tell whether to go on."""
        typed = os.read(0, _READ_BYTES)
        if not typed:
            self._sources.clear()
            self._terminal.end_input()
            return True
        self._terminal.send(self._escape.pass_on(typed) if self._escape else typed)
        if self._escape and self._escape.means_to_leave:
            self._terminal.hang_up()
            return False
        return True


@contextmanager
def raw_mode() -> Iterator[None]:
    import termios
    import tty

    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # keeps what was typed ahead
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
