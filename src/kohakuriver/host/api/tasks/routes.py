"""Tasks: submit, look at, steer and decide."""

from functools import partial
from typing import Annotated

from fastapi import Depends, Query
from starlette.responses import Response

from kohakuriver.host.api.http.answers import Endpoint, Message, answer, json_bytes
from kohakuriver.host.api.http.auditing import OnlyNoted
from kohakuriver.host.api.http.bodies import JsonBody, SubmitBody
from kohakuriver.host.api.http.body_reading import MAX_BODY_BYTES
from kohakuriver.host.api.path_fields import TaskIdText
from kohakuriver.host.api.permissions import Call, OperatorCall, UserCall, ViewerCall
from kohakuriver.host.api.records import FailedTarget, ResolvedTask, Submitted, TaskRecord, task_record
from kohakuriver.host.api.tasks.submission import host_access_of, specs_of
from kohakuriver.host.api.tasks.texts import task_list_text
from kohakuriver.host.api.vps_records import vps_record
from kohakuriver.host.auth import Action, may
from kohakuriver.host.control import SubmitResult, TaskFilter
from kohakuriver.models.enums import TaskState, TaskType
from kohakuriver.models.errors import Conflict, Denied, Unavailable
from kohakuriver.models.ids import TaskId, parse_task_id
from kohakuriver.models.spec.signals import KILL, check_signal
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.transitions import HOLDING

MOST_LISTED = 1000
Limit = Annotated[int, Query(ge=1, le=1 << 31, description=f"at most so many; never more than {MOST_LISTED}")]
Offset = Annotated[int, Query(ge=0, le=1 << 40)]
Text = Annotated[str | None, Query(max_length=255)]


async def submit(
    call: UserCall, body: Annotated[SubmitBody, Depends(JsonBody(SubmitBody, MAX_BODY_BYTES))]
) -> Response:
    """Put tasks into the queue. Answered once they are in the store, so that no crash forgets them."""
    specs = specs_of(body, call.actor)
    needs_approval = not may(call.actor, Action.SKIP_APPROVAL)
    result = await call.control.tasks.submit(call.actor.name, specs, needs_approval)
    if host_access := host_access_of(specs[0]):
        call.trail.note(" ".join(str(task.id) for task in result.tasks), host_access)
    return answer(_submitted(specs, result, needs_approval), 202)


def _submitted(specs: list[TaskSpec], result: SubmitResult, needs_approval: bool) -> Submitted:
    ids = [str(task.id) for task in result.tasks]
    message = f"task {ids[0]} submitted" if len(ids) == 1 else f"{len(ids)} tasks submitted"
    if needs_approval:
        message += "; an operator must approve"
    if result.failed:
        message += f"; {len(result.failed)} targets were refused"
    target = specs[0].target
    return Submitted(
        message=message,
        task_ids=ids,
        assigned_node=target.hostname if target and len(specs) == 1 else None,
        runner_response=None,
        failed_targets=[FailedTarget(target=target, reason=reason) for target, reason in result.failed],
    )


async def status(
    call: ViewerCall, task_id: TaskIdText, wait_seconds: Annotated[float, Query(ge=0, le=60)] = 0
) -> Response:
    """Show one task; with `wait_seconds` once it has ended, or when that time is over."""
    wanted = parse_task_id(task_id)
    task = (
        await call.control.tasks.wait_ended(wanted, wait_seconds)
        if wait_seconds
        else await call.control.tasks.find(wanted)
    )
    record = vps_record if task.is_vps else task_record
    control = call.control
    return answer(record(task, call, control.tasks.pending_reasons(task), control.tasks.progress_of(task)))


async def list_tasks(
    call: ViewerCall,
    status: TaskState | None = None,
    node: Text = None,
    name: Text = None,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Response:
    """List command tasks, newest first."""
    return await _listed(
        call, TaskFilter(TaskType.COMMAND, status, node, name=name, limit=most(limit), offset=offset)
    )


async def list_own(
    call: UserCall,
    status: TaskState | None = None,
    node: Text = None,
    name: Text = None,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Response:
    """List one's own command tasks, newest first."""
    owner = call.actor.name
    wanted = TaskFilter(TaskType.COMMAND, status, node, owner, name, limit=most(limit), offset=offset)
    return await _listed(call, wanted)


async def list_waiting_for_approval(call: OperatorCall, limit: Limit = 1000, offset: Offset = 0) -> Response:
    """List tasks that wait for an operator's decision, newest first."""
    return await _listed(call, TaskFilter(state=TaskState.PENDING_APPROVAL, limit=most(limit), offset=offset))


def most(limit: int) -> int:
    """Earlier clients ask for 10,000."""
    return min(limit, MOST_LISTED)


async def _listed(call: Call, wanted: TaskFilter) -> Response:
    """Answer a list, encoded once for all who may see the same of it, until the next commit."""
    sees_all = may(call.actor, Action.READ_ENVIRONMENT_VALUES)

    question = (wanted, None if sees_all else call.actor)
    make = partial(task_list_text, call, wanted)
    return json_bytes(await call.parts.cache.get(question, lambda: call.control.figures.revision, make))


async def resolve(
    call: ViewerCall,
    ref: Annotated[str, Query(min_length=1, max_length=255)],
    task_type: Annotated[TaskType | None, Query(description="of which type one named `ref` must be")] = None,
) -> Response:
    """Find a task's id by the id, an unambiguous ending of it (4 digits or more), or the task's name."""
    return answer(ResolvedTask(task_id=str(await call.control.tasks.resolve(ref, task_type))))


async def kill(
    call: UserCall,
    task_id: TaskIdText,
    signal: Annotated[
        str | None, Query(max_length=20, description="send this to all its processes, and nothing more")
    ] = None,
) -> Response:
    """End a task: all its processes get SIGTERM, after its grace SIGKILL; `/api/status` shows when it ended.

    With `signal` it goes on unless that signal ends it; `KILL` ends it at once, without the grace.
    """
    wanted = await _own(call, task_id)
    name = None if signal is None else check_signal(signal)
    if name in (None, KILL):
        await call.control.tasks.kill(wanted)
    if name is None:
        return answer(Message(f"task {wanted} is being killed"), 202)
    await _send_signal(call, await call.control.tasks.find(wanted), name)
    return answer(Message(f"SIG{name} is sent to all processes of task {wanted}"), 202)


async def _send_signal(call: Call, task: Task, name: str) -> None:
    """KILL is on record as a kill already, which needs nothing more where nothing runs."""
    is_there = task.state in HOLDING if name == KILL else task.state is TaskState.RUNNING
    if not is_there or task.assigned_node is None:
        if name == KILL:
            return
        raise Conflict(f"task {task.id} is {task.state.value}; only one that runs can be sent a signal")
    target = f"/api/signal/{task.id}?signal={name}&attempt={task.attempt.number}"
    try:
        await call.parts.runners.call(task.assigned_node, "POST", target)
    except Unavailable as error:
        goes_on = "; the task is killed once its node answers, with its grace" if name == KILL else ""
        raise Unavailable(f"{error}{goes_on}") from error


async def pause(call: UserCall, task_id: TaskIdText) -> Response:
    """Freeze a running task where it stands."""
    wanted = await _own(call, task_id)
    await call.control.tasks.pause(wanted)
    return answer(Message(f"task {wanted} is being paused"))


async def resume(call: UserCall, task_id: TaskIdText) -> Response:
    """Thaw a paused task."""
    wanted = await _own(call, task_id)
    await call.control.tasks.resume(wanted)
    return answer(Message(f"task {wanted} is being resumed"))


async def approve(call: OperatorCall, task_id: TaskIdText) -> Response:
    """Let a task into the queue."""
    wanted = parse_task_id(task_id)
    await call.control.tasks.approve(wanted, call.actor.name)
    return answer(Message(f"task {wanted} is approved"))


async def reject(
    call: OperatorCall, task_id: TaskIdText, reason: Annotated[str, Query(max_length=1000)] = ""
) -> Response:
    """Refuse a task for good; its submitter sees the reason."""
    wanted = parse_task_id(task_id)
    await call.control.tasks.reject(wanted, call.actor.name, reason)
    return answer(Message(f"task {wanted} is rejected"))


async def _own(call: Call, text: str) -> TaskId:
    """Return the id of a task that the caller may control; operators may control all."""
    wanted = parse_task_id(text)
    if not may(call.actor, Action.CONTROL_TASK):
        task = await call.control.tasks.find(wanted)
        if not may(call.actor, Action.CONTROL_TASK, task.owner):
            raise Denied(f"task {wanted} belongs to somebody else; its owner or an operator can do this")
    return wanted


ENDPOINTS = (
    Endpoint("POST", "/api/submit", submit, Submitted, 202, (404, 409, 429), audit=OnlyNoted("task.submit")),
    Endpoint("GET", "/api/status/{task_id}", status, TaskRecord, errors=(404,)),
    Endpoint("GET", "/api/tasks", list_tasks, list[TaskRecord]),
    Endpoint("GET", "/api/tasks/my", list_own, list[TaskRecord]),
    Endpoint("GET", "/api/tasks/pending-approval", list_waiting_for_approval, list[TaskRecord]),
    Endpoint("GET", "/api/tasks/resolve", resolve, ResolvedTask, errors=(404, 409)),
    Endpoint("POST", "/api/kill/{task_id}", kill, Message, 202, (404, 409, 502), audit="task.kill"),
    Endpoint("POST", "/api/command/{task_id}/pause", pause, Message, errors=(404, 409), audit="task.pause"),
    Endpoint(
        "POST", "/api/command/{task_id}/resume", resume, Message, errors=(404, 409), audit="task.resume"
    ),
    Endpoint("POST", "/api/approve/{task_id}", approve, Message, errors=(404, 409), audit="task.approve"),
    Endpoint("POST", "/api/reject/{task_id}", reject, Message, errors=(404, 409), audit="task.reject"),
)
