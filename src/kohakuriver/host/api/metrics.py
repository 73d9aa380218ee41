"""Figures for Prometheus, read from the parts at each scrape. Labels never carry ids.

Nothing here walks over tasks: a scrape costs the same whatever the length of the queue.
"""

import platform
from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from kohakuriver import __version__
from kohakuriver.host.api.parts import ApiParts, StoreFigures
from kohakuriver.host.control import ClosedBy
from kohakuriver.host.durations import Durations
from kohakuriver.models.enums import LeftoverKind, NodeStatus, TaskState

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class _HostCollector(Collector):
    def __init__(self, parts: ApiParts, store: StoreFigures | None) -> None:
        self._parts = parts
        self._store = store

    def collect(self) -> Iterator[Metric]:
        info = {"version": __version__, "python": platform.python_version()}
        yield InfoMetricFamily("kohakuriver_build", "What runs here", value=info)
        yield from self._cluster()
        yield from self._control()
        yield from self._requests()
        yield from self._streams()
        yield from self._retention()
        if self._store is not None:
            yield from _store(self._store)

    def _cluster(self) -> Iterator[Metric]:
        control = self._parts.control
        counts = control.figures.count_by_state()
        tasks = GaugeMetricFamily(
            "kohakuriver_tasks", "Tasks that have not ended, by state", labels=["state"]
        )
        for state in TaskState:
            if state in counts:
                tasks.add_metric([state.value], counts[state])
        yield tasks
        statuses = Counter(status for status, _ in control.nodes.openness().values())
        statuses[NodeStatus.PENDING] += len(control.nodes.enrolments())
        nodes = GaugeMetricFamily("kohakuriver_nodes", "Nodes by status", labels=["status"])
        for status in NodeStatus:
            nodes.add_metric([status.value], statuses[status])
        yield nodes
        counts_closed = control.figures.closed_nodes()
        closed = GaugeMetricFamily(
            "kohakuriver_nodes_closed",
            "Nodes that take no new work, by the kind of reason",
            labels=["reason"],
        )
        for reason in ClosedBy:
            closed.add_metric([reason.value], counts_closed[reason])
        yield closed

    def _control(self) -> Iterator[Metric]:
        figures = self._parts.control.figures
        counters, backlog = figures.counters, figures.backlog()
        yield from _gauges(
            ("queued_tasks", "Tasks that wait for resources", backlog.queued_tasks),
            ("open_orders", "Orders that runners have not answered", backlog.open_orders),
            ("inbox_commands", "Commands that wait for the control loop", backlog.inbox_commands),
        )
        yield from _counters(
            ("control_commits", "Transactions committed by the control loop", counters.commits),
            (
                "control_failed_commits",
                "Turns of the control loop that could not be committed",
                counters.failed_commits,
            ),
            ("control_commands", "Commands and reports taken in", counters.commands),
            ("control_placements", "Tasks placed on nodes", counters.placed),
            ("control_scheduling_seconds", "Time spent in placing tasks", counters.placing_seconds),
            ("heartbeats", "Heartbeats taken in", counters.heartbeats),
            ("reports", "Reports of tasks taken in", counters.reports),
        )
        yield from _durations("control_turn_seconds", "Turns of the control loop", counters.turns)
        yield from _durations("control_commit_seconds", "Transactions of the control loop", counters.writes)
        lateness = self._parts.lag.lateness
        yield from _durations("loop_lag_seconds", "How late the event loop was", lateness)

    def _requests(self) -> Iterator[Metric]:
        requests = self._parts.requests
        count = CounterMetricFamily(
            "kohakuriver_requests", "Requests by route", labels=["method", "route", "status"]
        )
        for (method, route, status), number in requests.count.items():
            count.add_metric([method, route, str(status)], number)
        yield count
        seconds = CounterMetricFamily(
            "kohakuriver_request_seconds", "Time until answers began, by route", labels=["route"]
        )
        for route, durations in requests.seconds.items():
            seconds.add_metric([route], durations.sum_seconds)
        yield seconds

    def _streams(self) -> Iterator[Metric]:
        events, logs = self._parts.events, self._parts.output.tails
        open_now = GaugeMetricFamily(
            "kohakuriver_followers", "Clients that follow a stream", labels=["stream"]
        )
        open_now.add_metric(["events"], events.followers)
        open_now.add_metric(["output"], logs.followers)
        yield open_now
        yield from _gauges(("open_requests", "Requests under way", self._parts.requests.open))
        yield from _counters(
            ("events_published", "Events encoded for followers", events.published),
            ("events_dropped_followers", "Followers that read too slowly", events.dropped),
        )

    def _retention(self) -> Iterator[Metric]:
        retention = self._parts.retention
        count = CounterMetricFamily(
            "kohakuriver_leftovers_removed", "What was kept for long enough and removed", labels=["kind"]
        )
        size = CounterMetricFamily(
            "kohakuriver_leftovers_removed_bytes", "Room that was made by that", labels=["kind"]
        )
        for kind in LeftoverKind:
            count.add_metric([kind.value], retention.removed[kind])
            size.add_metric([kind.value], retention.removed_bytes[kind])
        yield count
        yield size


def _store(size: StoreFigures) -> Iterator[Metric]:
    yield from _gauges(
        ("store_bytes", "Size of the database", size.file_bytes),
        ("store_log_bytes", "Size of the database's write-ahead log", size.log_bytes),
        ("store_free_bytes", "Room left on the database's disk", size.free_bytes),
    )


def _gauges(*rows: tuple[str, str, float]) -> Iterator[Metric]:
    for name, text, value in rows:
        yield GaugeMetricFamily(f"kohakuriver_{name}", text, value=value)


def _counters(*rows: tuple[str, str, float]) -> Iterator[Metric]:
    for name, text, value in rows:
        yield CounterMetricFamily(f"kohakuriver_{name}", text, value=value)


def _durations(name: str, text: str, durations: Durations) -> Iterator[Metric]:
    buckets = [(str(bound), count) for bound, count in durations.cumulated()] + [("+Inf", durations.count)]
    yield HistogramMetricFamily(f"kohakuriver_{name}", text, buckets=buckets, sum_value=durations.sum_seconds)
    yield from _gauges((f"{name}_longest", f"{text}, the longest", durations.longest_seconds))


def render_metrics(parts: ApiParts, store: StoreFigures | None) -> bytes:
    """Return the figures as text. `store` None: they could not be had."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_HostCollector(parts, store))
    ProcessCollector(registry=registry)
    return generate_latest(registry)
