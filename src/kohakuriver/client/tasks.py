"""Calls about tasks."""

from kohakuriver.client.connection.transport import ANSWER_SECONDS, Transport
from kohakuriver.client.records import Message, Reply, ResolvedTask, Submission, Submitted, TaskRecord
from kohakuriver.models.enums import TaskState, TaskType


class TasksApi:
    """`/api/submit`, `/api/tasks…`, `/api/status…` and the calls that steer a task."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def submit(self, submission: Submission) -> Reply[Submitted]:
        return self._transport.fetch(Submitted, "POST", "/api/submit", body=submission)

    def page(
        self,
        status: TaskState | None = None,
        node: str | None = None,
        name: str | None = None,
        limit: int = 100,
        offset: int = 0,
        *,
        mine: bool = False,
    ) -> Reply[list[TaskRecord]]:
        """Return tasks, newest first; `mine`: only those of the token's owner."""
        params = {
            "status": status.value if status else None,
            "node": node,
            "name": name,
            "limit": limit,
            "offset": offset or None,
        }
        path = "/api/tasks/my" if mine else "/api/tasks"
        return self._transport.fetch(list[TaskRecord], "GET", path, params=params)

    def pending_approval(self) -> Reply[list[TaskRecord]]:
        return self._transport.fetch(list[TaskRecord], "GET", "/api/tasks/pending-approval")

    def resolve(self, ref: str, named: TaskType | None = None) -> str:
        """Return the full id for an id, an unambiguous ending of one, or a task's name.

        `named`: of which type it must be if it is meant by its name.
        """
        params = {"ref": ref, "task_type": named.value if named else None}
        return self._transport.fetch(ResolvedTask, "GET", "/api/tasks/resolve", params=params).value.task_id

    def status(self, task_id: str, wait_seconds: int = 0) -> Reply[TaskRecord]:
        """Return the task; with `wait_seconds` (0 to 60), when it has ended or that time is over."""
        return self._transport.fetch(
            TaskRecord,
            "GET",
            f"/api/status/{task_id}",
            params={"wait_seconds": wait_seconds or None},
            timeout_seconds=ANSWER_SECONDS + wait_seconds,
        )

    def kill(self, task_id: str, signal: str | None = None) -> Reply[Message]:
        """End it; with a signal, send that one to all its processes and leave it to them (`KILL` ends it)."""
        return self._transport.fetch(Message, "POST", f"/api/kill/{task_id}", params={"signal": signal})

    def pause(self, task_id: str) -> Reply[Message]:
        return self._transport.fetch(Message, "POST", f"/api/command/{task_id}/pause")

    def resume(self, task_id: str) -> Reply[Message]:
        return self._transport.fetch(Message, "POST", f"/api/command/{task_id}/resume")

    def approve(self, task_id: str) -> Reply[Message]:
        return self._transport.fetch(Message, "POST", f"/api/approve/{task_id}")

    def reject(self, task_id: str, reason: str | None = None) -> Reply[Message]:
        return self._transport.fetch(Message, "POST", f"/api/reject/{task_id}", params={"reason": reason})
