"""A task followed to its end: both streams copied as bytes, its waiting explained, Ctrl-C asked about."""

import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from kohakuriver.cli.boundary import FAILED, INTERRUPTED
from kohakuriver.cli.console.plain_text import complain
from kohakuriver.cli.console.progress import StatusLine
from kohakuriver.cli.tasks.views import end_sentence, exit_status_of, waiting_sentence
from kohakuriver.cli.tasks.waiting_news import WaitingNews
from kohakuriver.descriptors import write_all
from kohakuriver.models.enums import Stream, TaskState
from kohakuriver.models.errors import KohakuRiverError

if TYPE_CHECKING:
    from kohakuriver.client.host_client import HostClient
    from kohakuriver.client.records import TaskRecord

_NOT_RUNNING = (TaskState.PENDING_APPROVAL, TaskState.PENDING, TaskState.ASSIGNING)
_QUEUE_SECONDS = 1
_RUNNING_SECONDS = 30
_AGAIN_SECONDS = 0.5
_LAST_OUTPUT_SECONDS = 60.0
"""How long output may still take to arrive after the task has ended."""


class AttemptNews:
    """Says once, before any output of it, that another attempt began. Both streams' threads may tell it."""

    def __init__(self, line: StatusLine) -> None:
        self._line = line
        self._told = 1
        self._lock = threading.Lock()

    def tell(self, task: "TaskRecord", attempt: int) -> None:
        with self._lock:
            if attempt <= self._told:
                return
            self._told = attempt
            self._line.clear()
            where = f" on {task.assigned_node}" if task.attempt == attempt and task.assigned_node else ""
            complain(f"attempt {attempt} of task {task.task_id} began{where}")


class OutputCopy:
    """Copies one stream of a task to a file descriptor, attempt after attempt, in a thread of its own."""

    def __init__(
        self, client: "HostClient", task_id: str, stream: Stream, line: StatusLine, news: AttemptNews
    ) -> None:
        self._client = client
        self._task_id = task_id
        self._stream = stream
        self._line = line
        self._news = news
        self._target = 1 if stream is Stream.STDOUT else 2
        self._failure: str | None = None
        # A daemon thread: after `detach` the process ends while the host's answer is still open.
        self._thread = threading.Thread(target=self._copy, name=stream.value, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> str | None:
        """Wait for the last bytes, and say what is missing if any are."""
        self._thread.join(_LAST_OUTPUT_SECONDS)
        if self._thread.is_alive():
            return f"the end of its {self._stream.value} did not arrive"
        return self._failure

    def _copy(self) -> None:
        try:
            attempt = 1
            while True:
                self._copy_attempt(attempt)
                task = self._after(attempt)
                if task.attempt <= attempt:
                    return
                attempt += 1
                self._news.tell(task, attempt)
        except BrokenPipeError:
            return  # nobody reads this stream any more; the task and the other stream go on
        except (KohakuRiverError, OSError) as error:
            self._failure = f"its {self._stream.value} could not be read to the end: {error}"

    def _copy_attempt(self, attempt: int) -> None:
        from kohakuriver.client.waiting import Patience

        pieces = self._client.logs.read(
            self._task_id, self._stream, follow=True, attempt=attempt, patience=Patience()
        )
        for chunk in pieces:
            if chunk:
                self._line.clear()
                write_all(self._target, chunk)

    def _after(self, attempt: int) -> "TaskRecord":
        """Return the task once it has ended or come to another attempt, as its output says it did."""
        from kohakuriver.client.errors import TRANSIENT
        from kohakuriver.client.waiting import Patience, has_ended

        patience = Patience()
        while True:
            try:
                task = self._client.tasks.status(self._task_id).value
            except TRANSIENT as error:
                patience.bear(error)
                continue
            if has_ended(task.status) or task.attempt > attempt:
                return task
            time.sleep(_AGAIN_SECONDS)


def follow_to_end(client: "HostClient", task_id: str, check: Callable[[], None] | None = None) -> int:
    """Copy the task's output until it has ended and return the exit status for this process.

    `check` is called about every second, and raises where waiting for the end is of no use.
    """
    line = StatusLine()
    news = AttemptNews(line)
    copies = [OutputCopy(client, task_id, stream, line, news) for stream in Stream]
    # Ctrl-C is for the thread that asks about it, and for no moment before it can ask.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    for copy in copies:
        copy.start()
    while True:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            task = _wait(client, task_id, line, check)
            break
        except KeyboardInterrupt:
            line.clear()
            status = _ask(client, task_id)
            if status is not None:
                return status
        except KohakuRiverError:
            line.clear()
            raise
    failures = [failure for failure in [copy.finish() for copy in copies] if failure]
    line.clear()
    for text in (*failures, end_sentence(task)):
        if text:
            complain(text)
    return exit_status_of(task) or (FAILED if failures else 0)


def _wait(
    client: "HostClient", task_id: str, line: StatusLine, check: Callable[[], None] | None
) -> "TaskRecord":
    """Wait for the end, looking every second while the task waits and holding the answer once it runs."""
    from kohakuriver.client.errors import TRANSIENT
    from kohakuriver.client.waiting import Patience, has_ended

    patience, news = Patience(), WaitingNews(line)
    hold_seconds = 0
    longest_seconds = _RUNNING_SECONDS if check is None else _QUEUE_SECONDS
    while True:
        if check is not None:
            check()
        try:
            task = client.tasks.status(task_id, wait_seconds=hold_seconds).value
        except TRANSIENT as error:
            line.show("the host does not answer; the task goes on without it, trying again")
            patience.bear(error)
            continue
        patience.reset()
        if has_ended(task.status):
            return task
        news.look(task)
        if task.status in _NOT_RUNNING:
            line.show(waiting_sentence(task))
        else:
            line.clear()
        hold_seconds = _QUEUE_SECONDS if task.status in _NOT_RUNNING else longest_seconds


def _ask(client: "HostClient", task_id: str) -> int | None:
    """Ask what Ctrl-C means; None: go on following. Without a terminal it means detach."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        complain(f"task {task_id} goes on; `kohakuriver task kill {task_id}` ends it")
        return INTERRUPTED
    actions: dict[str, Callable[[HostClient, str], int | None]] = {"k": _kill, "d": _detach, "c": _go_on}
    try:
        answer = click.prompt(
            f"\nTask {task_id}: kill it, detach and let it run, or continue? (k/d/c)",
            type=click.Choice(list(actions)),
            show_choices=False,
            err=True,
        )
    except click.Abort:
        answer = "d"
    return actions[answer](client, task_id)


def _kill(client: "HostClient", task_id: str) -> int | None:
    try:
        client.tasks.kill(task_id)
    except KohakuRiverError as error:  # it ended while the question stood, or the host is unreachable
        complain(str(error))
    return None


def _detach(client: "HostClient", task_id: str) -> int | None:
    complain(
        f"task {task_id} goes on; `kohakuriver task logs -f {task_id}` follows it, "
        f"`kohakuriver task kill {task_id}` ends it"
    )
    return 0


def _go_on(client: "HostClient", task_id: str) -> int | None:
    return None
