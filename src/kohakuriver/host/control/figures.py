"""The control room in figures, for metrics and readiness. Nothing here walks over tasks."""

from collections import Counter
from dataclasses import dataclass

from kohakuriver.host.control.loop import ControlLoop, LoopFigures
from kohakuriver.host.control.nodes.node import ClosedBy, closed_by
from kohakuriver.models.enums import TaskState


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits: tasks for resources, orders for runners' answers, commands for the loop."""

    queued_tasks: int
    open_orders: int
    inbox_commands: int


class ControlFigures:
    """Read from memory when asked; changes nothing."""

    def __init__(self, loop: ControlLoop) -> None:
        self._loop = loop

    @property
    def counters(self) -> LoopFigures:
        return self._loop.figures

    @property
    def revision(self) -> int:
        """Grows with every commit."""
        return self._loop.revision

    def backlog(self) -> Backlog:
        state = self._loop.state
        return Backlog(len(state.queue), len(state.orders), self._loop.waiting_commands)

    def count_by_state(self) -> dict[TaskState, int]:
        return {state: count for state, count in self._loop.state.counts.items() if count}

    def node_count(self) -> int:
        return len(self._loop.state.nodes)

    def closed_nodes(self) -> Counter[ClosedBy]:
        """How many nodes take no new work, by the kind of reason."""
        closed = (closed_by(node) for node in self._loop.state.nodes.values())
        return Counter(found[0] for found in closed if found is not None)

    def faults(self) -> list[tuple[str, str]]:
        """(part, sentence) for what does not work now."""
        loop = self._loop
        told = (loop.watch.fault, loop.watch.shortage, loop.fault)
        placing = [("placing", loop.placing_fault)] if loop.placing_fault else []
        return [("store", fault) for fault in told if fault] + placing
