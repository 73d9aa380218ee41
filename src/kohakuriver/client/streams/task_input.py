"""The standard input of a task, sent while it runs, over broken connections and restarts of the host.

What was sent and not yet taken by the task's runner is kept, at most `_WINDOW_BYTES` and a piece, and sent
again on the next connection, from the byte on that the runner says it has.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from kohakuriver.client.connection.host_trust import HostAccess
from kohakuriver.client.errors import HostUnreachable, error_from_code
from kohakuriver.client.streams.terminal import open_socket
from kohakuriver.client.tasks import TasksApi
from kohakuriver.client.waiting import Patience, has_ended
from kohakuriver.models.enums import Flow
from kohakuriver.models.errors import Conflict, EngineFault, InvalidInput, NotFound, Unavailable
from kohakuriver.models.transitions import ALIVE
from kohakuriver.pauses import growing_pauses
from kohakuriver.wire.terminal_frames import (
    EndOfInput,
    ErrorNews,
    InputNews,
    control_frame,
    data_frames,
    read_control,
)

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

_WINDOW_BYTES = 1 << 20
_LOOK_SECONDS = 0.25
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0

Read = Callable[[float], bytes | None]
"""Waits so many seconds for input; returns some, nothing at its end, or None where none came."""


class InputSender:
    """Sends what `read` gives to one task, in the order given."""

    def __init__(self, access: HostAccess, tasks: TasksApi, task_id: str, read: Read) -> None:
        self._access = access
        self._tasks = tasks
        self._task_id = task_id
        self._read = read
        self._taken = 0
        self._kept = b""
        """Read, and not taken: from the byte number `_taken` on."""
        self._sent = 0
        self._is_at_end = False
        self._has_told_end = False

    def send(self) -> None:
        """Return when all was taken, or nothing more is wanted; waits for the task to run first.

        Raises what the host refuses it with, and Unavailable once it was unreachable for too long.
        """
        patience = Patience()
        while self._comes_to_run(patience):
            try:
                if self._send_over_one_connection(patience):
                    return
            except (Conflict, NotFound):
                time.sleep(_LOOK_SECONDS)  # it is about to run, or has just ended
            except Unavailable as error:
                patience.bear(error)

    def _comes_to_run(self, patience: Patience) -> bool:
        """Wait until it runs; False: it has ended."""
        pauses = growing_pauses(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, growth=1.5, jitter=0)
        while True:
            try:
                state = self._tasks.status(self._task_id).value.status
            except Unavailable as error:
                patience.bear(error)
                continue
            if has_ended(state) or state in ALIVE:
                return not has_ended(state)
            time.sleep(next(pauses))

    def _send_over_one_connection(self, patience: Patience) -> bool:
        """Whether it is over."""
        from websockets.exceptions import ConnectionClosed

        with open_socket(self._access, f"/ws/task/{self._task_id}/stdin") as socket:
            is_greeted, self._has_told_end = False, False
            try:
                while True:
                    can_send = is_greeted and self._can_send()
                    news = _next_news(socket, 0.0 if can_send else _LOOK_SECONDS)
                    if news is None:
                        if can_send:
                            self._send_more(socket)
                        continue
                    if news.over:
                        return True
                    self._take_in(news, is_first=not is_greeted)
                    is_greeted = True
                    patience.reset()
            except ConnectionClosed as error:
                raise HostUnreachable("the connection that carries the input was lost") from error

    def _can_send(self) -> bool:
        """Whether something is there to be sent, or there is room to read more."""
        if self._sent < self._taken + len(self._kept):
            return True
        return not self._has_told_end if self._is_at_end else len(self._kept) < _WINDOW_BYTES

    def _take_in(self, news: InputNews, *, is_first: bool) -> None:
        gained = news.taken - self._taken
        if not 0 <= gained <= len(self._kept):
            raise EngineFault("the task has other input than was sent to it: its runner was restarted")
        self._kept = self._kept[gained:]
        self._taken = news.taken
        if is_first:
            self._sent = self._taken

    def _send_more(self, socket: "ClientConnection") -> None:
        waiting = self._kept[self._sent - self._taken :]
        if not waiting and not self._is_at_end:
            data = self._read(_LOOK_SECONDS)
            if data is None:
                return
            self._is_at_end = not data
            self._kept += data
            waiting = data
        for frame in data_frames(Flow.INPUT, waiting):
            socket.send(frame)
        self._sent += len(waiting)
        if self._is_at_end and not self._has_told_end:
            socket.send(control_frame(EndOfInput()))
            self._has_told_end = True


def _next_news(socket: "ClientConnection", seconds: float) -> InputNews | None:
    """None where nothing came in that time; raises the error that the host ends it with."""
    try:
        frame = socket.recv(timeout=seconds)
        message = read_control(frame) if isinstance(frame, str) else None
    except TimeoutError:
        return None
    except InvalidInput as error:
        raise EngineFault("the host sent a frame that this version cannot read") from error
    if isinstance(message, ErrorNews):
        raise error_from_code(message.code, message.data)
    return message if isinstance(message, InputNews) else None
