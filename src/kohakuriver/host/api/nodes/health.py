"""The last minute of the cluster, second by second. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from kohakuriver.host.api.nodes.gpu_records import GpuRecord, gpu_record
from kohakuriver.host.api.records import numa_shown
from kohakuriver.host.control import NodeSnapshot
from kohakuriver.models.enums import NodeStatus
from kohakuriver.wire.messages import NodeFigures, NumaInfo

SECONDS = 60


class HealthPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one node at one moment; `at` is the time of the sample on the node's own clock."""

    hostname: str
    status: NodeStatus | None = None
    last_heartbeat: datetime | None = None
    total_cores: int = 0
    numa_topology: dict[str, NumaInfo] | None = None
    """Only of the newest second."""
    at: datetime | None = None
    cpu_percent: float | None = None
    memory_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    current_avg_temp: float | None = None
    current_max_temp: float | None = None
    gpu_info: list[GpuRecord] = []


class AggregatePoint(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of all nodes at one moment: memory summed, load averaged, the highest temperature.

    The second half is the same under the names of earlier clients; online are the nodes that have a point.
    """

    nodes: int
    cpu_percent: float | None
    memory_percent: float | None
    memory_used_bytes: int
    memory_total_bytes: int
    current_avg_temp: float | None
    current_max_temp: float | None
    total_nodes: int = msgspec.field(name="totalNodes")
    online_nodes: int = msgspec.field(name="onlineNodes")
    total_cores: int = msgspec.field(name="totalCores")
    total_mem_bytes: int = msgspec.field(name="totalMemBytes")
    used_mem_bytes: int = msgspec.field(name="usedMemBytes")
    avg_cpu_percent: float | None = msgspec.field(name="avgCpuPercent")
    avg_mem_percent: float | None = msgspec.field(name="avgMemPercent")
    max_avg_cpu_temp: float | None = msgspec.field(name="maxAvgCpuTemp")
    max_max_cpu_temp: float | None = msgspec.field(name="maxMaxCpuTemp")
    last_updated: datetime | None = msgspec.field(name="lastUpdated")


class ClusterHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Oldest second first. `nodes`: for each second, a point for each node that has one."""

    nodes: list[list[HealthPoint]]
    aggregate: list[AggregatePoint]


def latest_point(node: NodeSnapshot) -> HealthPoint:
    beat = node.figures
    facts = _facts_of(node) | {"numa_topology": numa_shown(node)}
    if beat is None:
        return HealthPoint(**facts)
    return HealthPoint(
        **facts,
        cpu_percent=beat.cpu_percent,
        memory_percent=beat.memory_percent,
        memory_used_bytes=beat.memory_used_bytes,
        memory_total_bytes=beat.memory_total_bytes,
        current_avg_temp=beat.current_avg_temp,
        current_max_temp=beat.current_max_temp,
        gpu_info=[gpu_record(gpu) for gpu in beat.gpu_info],
    )


def _facts_of(node: NodeSnapshot) -> dict[str, Any]:
    announced = node.row.registration
    return {
        "hostname": node.row.hostname,
        "status": node.status,
        "last_heartbeat": node.last_heartbeat,
        "total_cores": announced.total_cores if announced else 0,
    }


def cluster_health(
    history: Sequence[tuple[str, Sequence[NodeFigures]]], nodes: Sequence[NodeSnapshot]
) -> ClusterHealth:
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
    known = {node.row.hostname: _facts_of(node) for node in nodes}
    shown = [[_point(*entry, known) for entry in second] for second in filled]
    if shown:
        topologies = {node.row.hostname: numa_shown(node) for node in nodes}
        shown[-1] = [
            msgspec.structs.replace(point, numa_topology=topologies.get(point.hostname))
            for point in shown[-1]
        ]
    return ClusterHealth(nodes=shown, aggregate=[_aggregate(second, known) for second in filled])


def _point(hostname: str, sample: NodeFigures, known: Mapping[str, dict[str, Any]]) -> HealthPoint:
    return HealthPoint(
        **known.get(hostname, {"hostname": hostname}),
        at=sample.at,
        cpu_percent=sample.cpu_percent,
        memory_percent=sample.memory_percent,
        memory_used_bytes=sample.memory_used_bytes,
        memory_total_bytes=sample.memory_total_bytes,
        current_avg_temp=sample.current_avg_temp,
        current_max_temp=sample.current_max_temp,
    )


def _aggregate(second: list[tuple[str, NodeFigures]], known: Mapping[str, dict[str, Any]]) -> AggregatePoint:
    samples = [sample for _, sample in second]
    used = sum(sample.memory_used_bytes for sample in samples)
    total = sum(sample.memory_total_bytes for sample in samples)
    averages = [s.current_avg_temp for s in samples if s.current_avg_temp is not None]
    highest = [s.current_max_temp for s in samples if s.current_max_temp is not None]
    cpu = round(sum(sample.cpu_percent for sample in samples) / len(samples), 2)
    return AggregatePoint(
        nodes=len(samples),
        cpu_percent=cpu,
        memory_percent=round(100 * used / total, 2) if total else None,
        memory_used_bytes=used,
        memory_total_bytes=total,
        current_avg_temp=round(sum(averages) / len(averages), 2) if averages else None,
        current_max_temp=max(highest, default=None),
        total_nodes=len(known),
        online_nodes=len(samples),
        total_cores=sum(known[hostname]["total_cores"] for hostname, _ in second if hostname in known),
        total_mem_bytes=total,
        used_mem_bytes=used,
        avg_cpu_percent=cpu,
        avg_mem_percent=round(sum(sample.memory_percent for sample in samples) / len(samples), 2),
        max_avg_cpu_temp=max(averages, default=None),
        max_max_cpu_temp=max(highest, default=None),
        last_updated=max(sample.at for sample in samples),
    )
