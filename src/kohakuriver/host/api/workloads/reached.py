"""Workloads that somebody wants to use: shells, files and ports of what runs."""

from collections.abc import Callable
from dataclasses import dataclass

from kohakuriver.host.api.permissions import Call
from kohakuriver.host.auth import Action, may
from kohakuriver.models.errors import Conflict, Denied
from kohakuriver.models.ids import TaskId, parse_task_id
from kohakuriver.models.tasks import Task
from kohakuriver.models.transitions import ALIVE, FINAL


@dataclass(frozen=True, slots=True)
class RunningWorkload:
    """A workload that the caller may use, and where it is."""

    task: Task
    node: str

    @property
    def task_id(self) -> TaskId:
        return self.task.id


async def usable_workload(
    call: Call, text: str, ended: Callable[[Task], str | None] = lambda task: None
) -> RunningWorkload:
    """Return the workload of that id if the caller may use it and it runs or is paused.

    Raises NotFound, Denied, or Conflict with its state, or with the sentence that `ended` has for it.
    """
    task = await call.control.tasks.find(parse_task_id(text))
    if not may_use(call, task):
        raise Denied(
            f"task {task.id} belongs to somebody else; its owner, an operator, or whom it is assigned to "
            "can do this"
        )
    if task.state not in ALIVE or task.assigned_node is None:
        raise Conflict(ended(task) or f"task {task.id} is {task.state.value}; this needs one that runs")
    return RunningWorkload(task, task.assigned_node)


async def workload_with_open_files(call: Call, text: str) -> RunningWorkload:
    """Return a usable workload whose files the caller may reach as root, which is how a runner reaches them.

    A VPS is its users' own, root included. A command task runs as a user of its node, and with root's
    rights its owner would read what others keep in shared storage.
    """
    workload = await usable_workload(call, text, _nothing_left)
    if not may_be_root(call, workload.task):
        raise Denied(
            f"files of the command task {workload.task_id} are reached with the rights of root, which needs "
            "the role operator; `kohakuriver exec` runs commands in it as its own user"
        )
    return workload


def _nothing_left(task: Task) -> str | None:
    """Where what a command task wrote is to be found, once its container is gone."""
    if task.is_vps or task.state not in FINAL or task.assigned_node is None:
        return None
    return (
        f"task {task.id} has ended ({task.state.value}), and its container is gone; what it wrote to /shared "
        f"is there still, and on {task.assigned_node} what it wrote to /local_temp: `kohakuriver run -t "
        f"{task.assigned_node} -- tar c -C FOLDER NAME > copy.tar` copies it out of there, and `kohakuriver "
        f"task logs {task.id}` prints its output"
    )


def may_be_root(call: Call, task: Task) -> bool:
    """Whether somebody who may use the workload may do so as root."""
    return task.is_vps or may(call.actor, Action.GRANT_HOST_ACCESS)


async def until_refused(call: Call, workload: RunningWorkload) -> str:
    """Wait until the caller may not use the workload any more; returns why. For what stays open."""
    return await call.refused(lambda: may_use(call, workload.task))


def may_use(call: Call, task: Task) -> bool:
    return call.parts.auth.may_use(call.actor, task)
