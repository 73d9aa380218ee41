"""What an order says, made from the task's record when it is sent; and whether its node has taken it."""

import math

from kohakuriver.host.control.turn import Turn
from kohakuriver.host.store.records import OrderRow
from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.vps import VpsState
from kohakuriver.wire.messages import Order, VpsOrder
from kohakuriver.wire.task_files import TaskFiles


def order_message(row: OrderRow, task: Task, default_environment: str) -> Order:
    """Return the message; only `execute` carries what to run."""
    task_id = str(row.task_id)
    if row.kind is not OrderKind.EXECUTE:
        protected = _protected_snapshot(task) if row.kind is OrderKind.STOP else None
        return Order(
            kind=row.kind, task_id=task_id, attempt=row.attempt, order_id=row.id, protected_snapshot=protected
        )
    spec, files = task.spec, _files(task.spec)
    return Order(
        kind=row.kind,
        task_id=task_id,
        attempt=row.attempt,
        order_id=row.id,
        command="" if files else spec.command,
        arguments=list(spec.arguments),
        env_vars=dict(spec.env_vars),
        required_cores=math.ceil(spec.required_cores),
        cores_thousandths=0 if isinstance(spec.required_cores, int) else round(spec.required_cores * 1000),
        required_gpus=list(spec.required_gpus),
        required_memory_bytes=spec.required_memory_bytes or None,
        target_numa_node_id=spec.target.numa_node if spec.target else None,
        container_name=None if spec.registry_image else spec.container_name or default_environment,
        registry_image=spec.registry_image,
        working_dir=spec.working_dir,
        stdout_path=task.attempt.stdout_path,
        stderr_path=task.attempt.stderr_path,
        privileged=spec.privileged,
        capabilities=list(spec.capabilities),
        additional_mounts=list(spec.additional_mounts),
        options=spec.options,
        session=_vps_order(task),
        pull=spec.pull,
        grace_seconds=spec.grace_seconds,
        files=files,
    )


def _protected_snapshot(task: Task) -> int | None:
    """The snapshot that the VPS is to be started from after this stop."""
    state = task.vps_state
    if state is None or not state.restart_requested or not state.restore.isdigit():
        return None
    return int(state.restore)


def _files(spec: TaskSpec) -> TaskFiles | None:
    if spec.stdin is None and spec.script is None:
        return None
    return TaskFiles(
        command=spec.command,
        stdin=spec.stdin.content if spec.stdin is not None else None,
        script=spec.script.content if spec.script is not None else None,
        streams=spec.stdin is not None and spec.stdin.streams,
    )


def _vps_order(task: Task) -> VpsOrder | None:
    vps = task.spec.vps
    if vps is None:
        return None
    state = task.vps_state or VpsState()
    return VpsOrder(
        hostname=task.spec.name or f"vps-{task.id}",
        ssh_key_mode=vps.ssh_key_mode,
        authorized_keys=list(vps.authorized_keys),
        host_key=vps.host_key,
        address=task.attempt.address,
        restore=state.restore,
    )


def was_never_taken(turn: Turn, task: Task) -> bool:
    """Whether the task waits for an order to get through to a node that cannot be reached."""
    if task.state is not TaskState.ASSIGNING or task.assigned_node not in turn.state.nodes:
        return False
    if turn.state.nodes[task.assigned_node].unreached_since is None:
        return False
    return any(_begins(order, task) for order in turn.state.orders.of_task(task.id))


def _begins(order: OrderRow, task: Task) -> bool:
    return order.kind is OrderKind.EXECUTE and order.attempt == task.attempt.number
