"""A program in a terminal of its own, typed to and read as a person would."""

import os
import pty
import select
import signal
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager


class PtySession:
    """`text` is everything that the terminal has shown so far."""

    def __init__(self, pid: int, master: int) -> None:
        self.pid = pid
        self.text = ""
        self._master = master
        self._status: int | None = None

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
        while (ended := os.waitpid(self.pid, os.WNOHANG)) == (0, 0):
            assert time.monotonic() < deadline, f"the program did not end; the terminal shows {self.text!r}"
            time.sleep(0.01)
        self._status = os.waitstatus_to_exitcode(ended[1])
        return self._status

    def close(self) -> None:
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
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
    """Run `argv` with a new terminal as its input, output and error output."""
    pid, master = pty.fork()
    if pid == 0:
        os.execve(argv[0], argv, environment)
    termios.tcsetwinsize(master, (50, 200))
    session = PtySession(pid, master)
    try:
        yield session
    finally:
        session.close()
