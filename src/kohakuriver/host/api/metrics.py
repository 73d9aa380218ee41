"""Figures for Prometheus, read from the control room at each scrape. Labels never carry ids."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from kohakuriver.host.control import ClusterControl
from kohakuriver.models.enums import NodeStatus, TaskState

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class _ControlCollector(Collector):
    def __init__(self, control: ClusterControl) -> None:
        self._control = control

    def collect(self) -> Iterator[Metric]:
        counts = self._control.count_by_state()
        tasks = GaugeMetricFamily(
            "kohakuriver_tasks", "Tasks that have not ended, by state", labels=["state"]
        )
        for state in TaskState:
            if state in counts:
                tasks.add_metric([state.value], counts[state])
        yield tasks
        statuses = Counter(node.status for node in self._control.nodes())
        statuses[NodeStatus.PENDING] += len(self._control.enrolments())
        nodes = GaugeMetricFamily("kohakuriver_nodes", "Nodes by status", labels=["status"])
        for status in NodeStatus:
            nodes.add_metric([status.value], statuses[status])
        yield nodes
        figures = self._control.figures
        for name, text, value in (
            ("commits", "Transactions committed by the control loop", figures.commits),
            (
                "failed_commits",
                "Turns of the control loop that could not be committed",
                figures.failed_commits,
            ),
            ("commands", "Commands and reports taken in", figures.commands),
            ("placements", "Tasks placed on nodes", figures.placed),
            ("commit_seconds", "Time spent in commits", figures.commit_seconds),
            ("scheduling_seconds", "Time spent in placing tasks", figures.placing_seconds),
        ):
            yield CounterMetricFamily(f"kohakuriver_control_{name}", text, value=value)


def render_metrics(control: ClusterControl) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ControlCollector(control))
    return generate_latest(registry)
