"""Short tasks and sandboxes with a tunnel client and without, in turns on two nodes otherwise alike."""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.clusters import NODE, real_cluster
from bench.measuring import Figure, cpu_seconds, resident_mib
from bench.real_cluster import run_burst, wide_network
from support.cluster.cluster import Cluster, wait_for

SECTION = "sandboxes"
_POOL = 8
_WITHOUT = f"{NODE}-without"
_CLIENT_MIB = 12.0
_SETTLE_SECONDS = 5.0


@dataclass
class _Node:
    name: str
    words: str
    rates: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    used: int = 0

    def run(self, cluster: Cluster, count: int) -> None:
        """Run so many tasks that say which sandbox they are in."""
        runner = _runner(cluster, self)
        before = cpu_seconds(runner)
        burst = run_burst(cluster, count, 1, command="cat", arguments=["/etc/hostname"], targets=[self.name])
        self.cpu_seconds.append((cpu_seconds(runner) - before) / count)
        self.rates.append(count / burst.seconds)
        self.used += len({cluster.output(task_id) for task_id in burst.task_ids})

    def sandboxes(self) -> list[str]:
        filters = (f"label=kohakuriver.node={self.name}", "label=kohakuriver.sandbox")
        listed = ["docker", "ps", "-q", *(word for one in filters for word in ("--filter", one))]
        return subprocess.run(listed, capture_output=True, check=True).stdout.decode().split()

    def processes(self) -> list[list[int]]:
        """Of each sandbox, the first one before the others."""
        inspected = ["docker", "inspect", "-f", "{{.State.Pid}}", *self.sandboxes()]
        pids = subprocess.run(inspected, capture_output=True, check=True).stdout.split()
        return [[int(pid), *_children(int(pid))] for pid in pids]


def measure(quick: bool) -> Iterator[Figure]:
    turns, count = (2, 60) if quick else (6, 100)
    with real_cluster(**wide_network(), SANDBOX_POOL_SIZE=_POOL) as (cluster, _image):
        cluster.add_runner(_WITHOUT, SANDBOX_POOL_SIZE=_POOL, TUNNEL_ENABLED=False)
        nodes = _Node(NODE, "with a tunnel client"), _Node(_WITHOUT, "without")
        for node in nodes:
            node.run(cluster, count // 3)  # warms up
            node.rates, node.cpu_seconds, node.used = [], [], 0
        for turn in range(turns):
            for node in nodes if turn % 2 else reversed(nodes):
                node.run(cluster, count)
        yield from _rates(*nodes, turns, count)
        yield from _memory(cluster, nodes)


def _rates(with_client: _Node, without: _Node, turns: int, count: int) -> Iterator[Figure]:
    for node in (with_client, without):
        note = f"{turns} times {count}: {min(node.rates):.2f} to {max(node.rates):.2f}"
        yield Figure(SECTION, f"short tasks, {node.words}", round(median(node.rates), 2), "per s", note=note)
    pairs = [ours / bare for ours, bare in zip(with_client.rates, without.rates, strict=True)]
    note = f"median of the turns: {min(pairs):.2f} to {max(pairs):.2f}"
    yield Figure(SECTION, "  of the rate without", round(median(pairs), 2), "x", 0.95, note=note)
    for node in (with_client, without):
        cpu_ms = [round(each * 1000, 1) for each in node.cpu_seconds]
        note = f"{min(cpu_ms):g} to {max(cpu_ms):g}"
        yield Figure(
            SECTION, f"CPU of the runner, {node.words}", median(cpu_ms), "ms", note=f"a task; {note}"
        )
    for node in (with_client, without):
        tasks = turns * count
        note = f"by {tasks} tasks, in {turns} bursts"
        yield Figure(SECTION, f"sandboxes used, {node.words}", node.used, "", note=note)


def _memory(cluster: Cluster, nodes: tuple[_Node, _Node]) -> Iterator[Figure]:
    wait_for(lambda: all(len(node.sandboxes()) == _POOL for node in nodes), "full pools, and no more")
    time.sleep(_SETTLE_SECONDS)
    for node in nodes:
        processes = node.processes()
        own = median(sum(_share_mib(pid) for pid in pids) for pids in processes)
        note = f"own pages and its share of shared ones; median of {len(processes)}"
        yield Figure(SECTION, f"memory of a sandbox, {node.words}", round(own, 2), "MiB", note=note)
        clients = [resident_mib(pid) for _, *pids in processes for pid in pids]
        if clients:
            name = "resident memory of an idle client, the largest"
            yield Figure(SECTION, name, max(clients), "MiB", _CLIENT_MIB, at_most=True)
        mib = resident_mib(_runner(cluster, node))
        yield Figure(SECTION, f"memory of the runner, {node.words}", mib, "MiB")


def _runner(cluster: Cluster, node: _Node) -> int:
    process = cluster.runners[node.name].process
    assert process is not None
    return process.pid


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _share_mib(pid: int) -> float:
    """Memory of a process, of which pages that others have as well are divided among them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
