"""A program in a terminal of its own, typed to and read as a person would."""

import os
import select
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager


class PtySession:
    """`text` is everything that the terminal has shown so far."""

    def __init__(self, process: "subprocess.Popen[bytes]", master: int) -> None:
        self.text = ""
        self._process = process
        self._master = master

    @property
    def pid(self) -> int:
        return self._process.pid

    def resize(self, rows: int, cols: int) -> None:
        termios.tcsetwinsize(self._master, (rows, cols))

    def send(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str, seconds: float = 20) -> None:
        """Read until the terminal has shown `text`."""
        deadline = time.monotonic() + seconds
        while text not in self.text:
            assert self._read(deadline), f"the terminal never showed {text!r}; it shows {self.text!r}"

    def wait(self, seconds: float = 20) -> int:
        """Read to the end and return the exit status."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            assert time.monotonic() < deadline, f"the program did not end; the terminal shows {self.text!r}"
        while (status := self._process.poll()) is None:
            assert time.monotonic() < deadline, f"the program did not end; the terminal shows {self.text!r}"
            time.sleep(0.01)
        return status

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other end is closed, which Linux reports so
            return False
        self.text += data.decode("utf-8", "replace")
        return bool(data)


@contextmanager
def pty_session(argv: list[str], environment: dict[str, str]) -> Iterator[PtySession]:
    """Run `argv` with a new terminal as its input, output and error output.

    Not by pty.fork(): a copy of a process that has threads may wait for ever for what one of them held.
    """
    master, terminal = os.openpty()
    termios.tcsetwinsize(master, (50, 200))
    process = subprocess.Popen(
        ["/usr/bin/setsid", "--ctty", *argv],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
    )
    os.close(terminal)
    session = PtySession(process, master)
    try:
        yield session
    finally:
        session.close()
