"""Waiting for what a VPS was asked to do: until it runs, or has stopped, or it is known why not.

The host forgets a VPS's notice when it is asked to stop or to start again, so one that is there while it
is waited for says what went wrong with just that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kohakuriver.cli.console.plain_text import complain
from kohakuriver.cli.console.progress import progress
from kohakuriver.cli.tasks.views import waiting_sentence
from kohakuriver.cli.tasks.waiting_news import WaitingNews
from kohakuriver.cli.vps.references import callable_name
from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import Conflict
from kohakuriver.models.transitions import ALIVE

if TYPE_CHECKING:
    from kohakuriver.client.host_client import HostClient
    from kohakuriver.client.records import Reply
    from kohakuriver.client.vps_records import VpsRecord

_NOT_THERE_YET = (TaskState.PENDING, TaskState.ASSIGNING)


def await_running(client: "HostClient", task_id: str, after_attempt: int = 0) -> "Reply[VpsRecord]":
    """Return the VPS once a run of it later than `after_attempt` is ready.

    Raises Conflict, with the reason, when it does not come to that.
    """
    with _detachable(task_id), progress(f"VPS {task_id} is being started") as shown:
        news = WaitingNews(shown, "VPS")
        for reply in client.vps.watch(task_id):
            record = reply.value
            if record.attempt > after_attempt and record.status in ALIVE:
                return reply
            if record.status is TaskState.STOPPED and record.restart_requested:
                shown.step(record.notice or f"VPS {task_id} is being started")
                continue
            _raise_if_over(record)
            if record.attempt <= after_attempt:
                _raise_if_it_goes_on(record)
            if record.status in _NOT_THERE_YET:
                news.look(record)
                shown.step(waiting_sentence(record, "VPS"))
    raise AssertionError("a VPS is watched without end")


def await_stopped(client: "HostClient", before: "VpsRecord") -> None:
    """Return once the VPS's run `before` has stopped; raises Conflict when it goes on instead."""
    with _detachable(before.task_id), progress(f"VPS {before.task_id} is being stopped"):
        for reply in client.vps.watch(before.task_id):
            record = reply.value
            if record.status is TaskState.STOPPED or record.attempt > before.attempt:
                return
            _raise_if_over(record)
            _raise_if_it_goes_on(record)
    raise AssertionError("a VPS is watched without end")


def _raise_if_it_goes_on(record: "VpsRecord") -> None:
    if record.status in ALIVE and record.notice:
        raise Conflict(f"VPS {callable_name(record)} goes on: {record.notice}")


def _raise_if_over(record: "VpsRecord") -> None:
    from kohakuriver.client.waiting import has_ended

    if has_ended(record.status):
        reason = record.notice or record.error_message
        raise Conflict(
            f"VPS {callable_name(record)} is {record.status.value}{f': {reason}' if reason else ''}"
        )


@contextmanager
def _detachable(task_id: str) -> Iterator[None]:
    """Ctrl-C ends the waiting and nothing else."""
    try:
        yield
    except KeyboardInterrupt:
        complain(f"what was asked of VPS {task_id} goes on; `kohakuriver vps status {task_id}` shows it")
        raise
