"""The last minute of the cluster, second by second. Pure."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from kohakuriver.host.control import NodeSnapshot
from kohakuriver.wire.messages import GpuInfo, NodeFigures

SECONDS = 60


class HealthPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one node at one moment; `at` is the time of the sample on the node's own clock."""

    hostname: str
    at: datetime | None = None
    cpu_percent: float | None = None
    memory_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    current_avg_temp: float | None = None
    current_max_temp: float | None = None
    gpu_info: list[GpuInfo] = []


class AggregatePoint(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of all nodes at one moment: memory summed, load averaged, the highest temperature."""

    nodes: int
    cpu_percent: float | None
    memory_percent: float | None
    memory_used_bytes: int
    memory_total_bytes: int
    current_avg_temp: float | None
    current_max_temp: float | None


class ClusterHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Oldest second first. `nodes`: for each second, a point for each node that has one."""

    nodes: list[list[HealthPoint]]
    aggregate: list[AggregatePoint]


def latest_point(node: NodeSnapshot) -> HealthPoint:
    beat = node.figures
    if beat is None:
        return HealthPoint(hostname=node.row.hostname)
    return HealthPoint(
        hostname=node.row.hostname,
        cpu_percent=beat.cpu_percent,
        memory_percent=beat.memory_percent,
        memory_used_bytes=beat.memory_used_bytes,
        memory_total_bytes=beat.memory_total_bytes,
        current_avg_temp=beat.current_avg_temp,
        current_max_temp=beat.current_max_temp,
        gpu_info=beat.gpu_info,
    )


def cluster_health(history: Sequence[tuple[str, Sequence[NodeFigures]]]) -> ClusterHealth:
    """Lay the nodes' samples side by side.

    Clocks of nodes differ, so each node's samples are placed by their distance from its own newest one.
    """
    seconds: list[list[tuple[str, NodeFigures]]] = [[] for _ in range(SECONDS)]
    for hostname, samples in history:
        by_age = {int((samples[-1].at - sample.at).total_seconds()): sample for sample in samples}
        for age, sample in by_age.items():
            if 0 <= age < SECONDS:
                seconds[SECONDS - 1 - age].append((hostname, sample))
    filled = [second for second in seconds if second]
    return ClusterHealth(
        nodes=[[_point(*entry) for entry in second] for second in filled],
        aggregate=[_aggregate([sample for _, sample in second]) for second in filled],
    )


def _point(hostname: str, sample: NodeFigures) -> HealthPoint:
    return HealthPoint(
        hostname=hostname,
        at=sample.at,
        cpu_percent=sample.cpu_percent,
        memory_percent=sample.memory_percent,
        memory_used_bytes=sample.memory_used_bytes,
        memory_total_bytes=sample.memory_total_bytes,
        current_avg_temp=sample.current_avg_temp,
        current_max_temp=sample.current_max_temp,
    )


def _aggregate(samples: list[NodeFigures]) -> AggregatePoint:
    used = sum(sample.memory_used_bytes for sample in samples)
    total = sum(sample.memory_total_bytes for sample in samples)
    averages = [s.current_avg_temp for s in samples if s.current_avg_temp is not None]
    highest = [s.current_max_temp for s in samples if s.current_max_temp is not None]
    return AggregatePoint(
        nodes=len(samples),
        cpu_percent=round(sum(sample.cpu_percent for sample in samples) / len(samples), 2),
        memory_percent=round(100 * used / total, 2) if total else None,
        memory_used_bytes=used,
        memory_total_bytes=total,
        current_avg_temp=round(sum(averages) / len(averages), 2) if averages else None,
        current_max_temp=max(highest, default=None),
    )
