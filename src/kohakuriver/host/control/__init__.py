"""The one writer of cluster state: commands and reports in, scheduling, commits, orders out."""

from kohakuriver.host.control.cluster_control import ClusterControl
from kohakuriver.host.control.figures import ControlFigures
from kohakuriver.host.control.nodes.node import ClosedBy, NodeSnapshot
from kohakuriver.host.control.nodes.runner_control import RunnerControl
from kohakuriver.host.control.tasks.submission import SubmitResult
from kohakuriver.host.store.queries import TaskFilter
from kohakuriver.host.store.records import NumberedEvent
from kohakuriver.host.store.task_lists import TaskMark

__all__ = [
    "ClosedBy",
    "ClusterControl",
    "ControlFigures",
    "NodeSnapshot",
    "NumberedEvent",
    "RunnerControl",
    "SubmitResult",
    "TaskFilter",
    "TaskMark",
]
