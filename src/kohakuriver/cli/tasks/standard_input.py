"""The standard input of `run`: whether it is for the task, and how it gets there.

Forwarded are pipes, sockets and files, as they were meant for the command. A terminal, `/dev/null` and a
closed one are not; nor is a file that somebody has begun to read, which is the input of the loop that `run`
stands in. What is at its end at once and small goes with the task; all else is sent while the task runs, so
that nothing waits for an input that never ends.
"""

import contextlib
import os
import select
import signal
import stat
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from kohakuriver.models.spec.task_files import ABSENCE_SECONDS, MAX_FILE_BYTES

if TYPE_CHECKING:
    from kohakuriver.cli.host_choice import HostChoice

_AT_ONCE_SECONDS = 0.3
"""So long a pipe has to come to its end, if its content is to go with the task."""

_PIECE_BYTES = 65536
_STDIN = 0


@dataclass(frozen=True, slots=True)
class OwnInput:
    """`content`: what was read of it; None: nothing is forwarded. `streams`: there may be more."""

    content: bytes | None = None
    streams: bool = False


NO_INPUT = OwnInput()


def own_input(wanted: bool | None) -> OwnInput:
    """Look at standard input, and read it if it is small. To be called before anything is opened.

    `wanted`: what the user said of it; None: nothing.
    """
    kind = 0 if wanted is False else _kind()
    if kind == stat.S_IFREG:
        return _of_file(wanted)
    if kind in (stat.S_IFIFO, stat.S_IFSOCK) or (kind == stat.S_IFCHR and wanted):
        content, is_at_end = _at_once()
        return OwnInput(content, streams=not is_at_end)
    return OwnInput()


def _kind() -> int:
    try:
        return stat.S_IFMT(os.fstat(_STDIN).st_mode)
    except OSError:
        return 0


def _of_file(wanted: bool | None) -> OwnInput:
    begin, size = os.lseek(_STDIN, 0, os.SEEK_CUR), os.fstat(_STDIN).st_size
    if begin and begin < size and wanted is None:
        from kohakuriver.cli.console.plain_text import complain

        complain(
            "standard input is a file that somebody else has begun to read, so it is left to them (-n says "
            "that without this line, --stdin hands the rest of it on)"
        )
        return OwnInput()
    if begin >= size and not wanted:
        return OwnInput()
    content, is_at_end = _at_once()
    return OwnInput(content, streams=not is_at_end)


def _at_once() -> tuple[bytes, bool]:
    """What is there now, and whether that is all."""
    content = b""
    deadline = time.monotonic() + _AT_ONCE_SECONDS
    while len(content) <= MAX_FILE_BYTES:
        data = read_input(max(deadline - time.monotonic(), 0.0))
        if data is None:
            return content, False
        if not data:
            return content, True
        content += data
    return content, False


def read_input(seconds: float) -> bytes | None:
    """Wait so long for input; returns some, nothing at its end, or None where none came."""
    if not select.select([_STDIN], [], [], seconds)[0]:
        return None
    return os.read(_STDIN, _PIECE_BYTES)


class Forwarding:
    """Sends what there is of standard input while the task runs, in a thread of its own, from `begin` on."""

    def __init__(self, chosen_host: "HostChoice", task_id: str, given: OwnInput) -> None:
        self._chosen_host = chosen_host
        self._task_id = task_id
        self._begun = given.content or b""
        self._is_over = not given.streams
        self._failure: str | None = None
        # A daemon thread: the process ends when the task has, whatever comes on standard input.
        self._thread = threading.Thread(target=self._send, name="stdin", daemon=True)

    def begin(self) -> None:
        if not self._is_over:
            self._thread.start()

    def say_what_is_missing(self) -> None:
        """To be called when the task is followed no more."""
        if self._is_over:
            return
        from kohakuriver.cli.console.plain_text import complain
        from kohakuriver.client.waiting import has_ended
        from kohakuriver.models.errors import Unavailable

        with contextlib.suppress(Unavailable):
            if has_ended(self._chosen_host.client.tasks.status(self._task_id).value.status):
                return  # its own message says what became of its input
        complain(
            f"the rest of its standard input does not come any more ({self._failure or 'it is left alone'}); "
            f"a task that waits for it fails in {ABSENCE_SECONDS // 60} minutes"
        )

    def _read(self, seconds: float) -> bytes | None:
        data, self._begun = self._begun, b""
        return data or read_input(seconds)

    def _send(self) -> None:
        from kohakuriver.client.streams.task_input import InputSender
        from kohakuriver.models.errors import KohakuRiverError

        # Ctrl-C is for the thread that asks about it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            client = self._chosen_host.client
            InputSender(self._chosen_host.access(), client.tasks, self._task_id, self._read).send()
        except (KohakuRiverError, OSError) as error:
            self._failure = str(error)
        else:
            self._is_over = True


def check_streamed(*, detach: bool, retries: int) -> None:
    """Raise UsageError for what cannot be done with input that is sent while the task runs."""
    where = "put it into a file that the task can read, or say -n"
    if detach:
        raise click.UsageError(f"--detach leaves nobody who sends the rest of standard input; {where}")
    if retries:
        raise click.UsageError(f"this standard input cannot be sent again, as --retries needs; {where}")
