"""What host and runner cost while they have nothing to do: after their start, and after a burst of tasks."""

import time
from collections.abc import Iterator

import psutil

from bench.clusters import real_cluster
from bench.installed import installed_programs
from bench.measuring import Figure, core_share, resident_mib
from bench.real_cluster import run_burst, wide_network
from support.cluster.cluster import Cluster, Daemon

SECTION = "footprint"
_SETTLE_SECONDS = 10.0
_MEMORY_TARGETS = {"host": 120.0, "runner": 80.0}


def measure(quick: bool) -> Iterator[Figure]:
    idle_seconds = 10.0 if quick else 20.0
    burst = 100 if quick else 1000
    # The interval of heartbeats is the default one here, not the tests' short one.
    settings = {**wide_network(), "HEARTBEAT_INTERVAL_SECONDS": 5}
    with real_cluster(programs=installed_programs(), **settings) as (cluster, _image):
        time.sleep(_SETTLE_SECONDS)
        yield from _figures(cluster, "after start", idle_seconds)
        seconds = run_burst(cluster, burst, task_cores=1).seconds
        yield Figure(SECTION, f"burst of {burst} tasks", round(burst / seconds, 2), "per s")
        time.sleep(_SETTLE_SECONDS)
        yield from _figures(cluster, "after the burst", idle_seconds)


def _figures(cluster: Cluster, when: str, idle_seconds: float) -> Iterator[Figure]:
    for name, daemon in (("host", cluster.host), ("runner", next(iter(cluster.runners.values())))):
        pid = _pid(daemon)
        target = _MEMORY_TARGETS[name]
        yield Figure(SECTION, f"{name}, memory {when}", resident_mib(pid), "MiB", target, at_most=True)
        for kept in psutil.Process(pid).children():
            yield Figure(SECTION, f"its pipe keeper, memory {when}", resident_mib(kept.pid), "MiB")
        share = core_share(pid, idle_seconds)
        note = f"over {idle_seconds:.0f} s"
        yield Figure(SECTION, f"{name}, CPU idle {when}", share, "% core", 0.5, at_most=True, note=note)


def _pid(daemon: Daemon | None) -> int:
    assert daemon is not None
    assert daemon.process is not None
    return daemon.process.pid
