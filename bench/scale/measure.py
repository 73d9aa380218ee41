"""The figures of the control plane at size; each part starts a host of its own and ends it.

Figures of CPU are the host process's own time, so that other work on the machine changes them little;
latencies and rates are wall time and need a machine that does nothing else.
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.clusters import host_alone
from bench.load import Load, Outcome, finish_load, run_load, start_load
from bench.measuring import Figure, cpu_seconds, resident_mib, summary
from bench.playing import UNTIL_TOLD, Beats, Play, Playing, playing
from bench.scale.cluster_figures import host_pid, read, scrape
from bench.scale.followers import Following, followers
from bench.seeding import QUEUED_CORES, Seed
from support.cluster.cluster import Cluster, free_port, wait_for

SECTION = "scale"
_CORES = 64
_TASKS_PER_NODE = _CORES // QUEUED_CORES
_NEVER_SECONDS = 3600.0


@dataclass(frozen=True)
class Sizes:
    """`followers` is shared equally between events and output. `seconds` bounds the steady part; `ends` are
    those of the curve; `shapes` is how many different demands the queue holds.
    """

    nodes: int = 1_000
    queued: int = 100_000
    past: int = 1_000_000
    followers: int = 500
    seconds: float = 60.0
    ends: int = 500
    shapes: int = 20

    @property
    def running(self) -> int:
        return self.nodes * _TASKS_PER_NODE


def _play(cluster: Cluster, sizes: Sizes, beat_seconds: float) -> Play:
    return Play(
        cluster.port,
        cluster.token,
        free_port(),
        nodes=sizes.nodes,
        cores=_CORES,
        gpus=2,
        beat_seconds=beat_seconds,
        task_seconds=UNTIL_TOLD,
        own_addresses=True,
    )


def placing(sizes: Sizes) -> Iterator[Figure]:
    """Ten tasks for each node, submitted to nodes that have nothing to do."""
    body = json.dumps({"task_type": "command", "command": "x", "required_cores": QUEUED_CORES})
    with host_alone() as cluster, playing(_play(cluster, sizes, _NEVER_SECONDS)) as runners:
        before = read(cluster)
        outcome = run_load(Load(cluster.port, "POST", "/api/submit", cluster.token, sizes.running, 32, body))
        runners.await_running(sizes.running)
        spent = read(cluster).since(before)
    note = (
        f"{spent.placements:.0f} placements on {sizes.nodes} nodes, {spent.cpu:.1f} s of CPU in all from "
        f"submission to running, submitted at {outcome.rate:.0f} per s"
    )
    yield Figure(
        SECTION, f"scheduling of {sizes.running} tasks", round(spent.scheduling, 3), "s", 1.0, True, note
    )


def curve(sizes: Sizes) -> Iterator[Figure]:
    """What the end of one task costs (its report, the placement of the next one, its order) with queues of
    1/100, 1/10 and the whole of the length; no heartbeats in between.
    """
    for queued in (sizes.queued // 100, sizes.queued // 10, sizes.queued):
        seed = Seed(queued=queued + sizes.running + sizes.ends, shapes=sizes.shapes)
        with host_alone(seed) as cluster, playing(_play(cluster, sizes, _NEVER_SECONDS)) as runners:
            runners.await_running(sizes.running)
            before, done = read(cluster), runners.done
            runners.end_tasks(sizes.ends, sizes.ends / 50)
            runners.await_done(done + sizes.ends)
            runners.await_running(sizes.running)
            spent = read(cluster).since(before)
        note = (
            f"{sizes.ends} ends; scheduling {spent.scheduling * 1e6 / sizes.ends:.0f} us and "
            f"{spent.turns * 1e3 / sizes.ends:.2f} ms of turns each, {spent.commits:.0f} commits"
        )
        cpu_ms = round(spent.cpu * 1e3 / sizes.ends, 2)
        yield Figure(SECTION, f"CPU of one end with {queued} queued", cpu_ms, "ms", note=note)


def steady(sizes: Sizes) -> Iterator[Figure]:
    """Everything at once for some seconds, then a restart of the host, then submissions."""
    seed = Seed(past=sizes.past, queued=sizes.queued + sizes.running, shapes=sizes.shapes)
    began = time.monotonic()
    with host_alone(seed) as cluster:
        yield Figure(SECTION, "store seeded and host started", round(time.monotonic() - began, 1), "s")
        began = time.monotonic()
        with playing(_play(cluster, sizes, 5.0)) as runners:
            joined = time.monotonic() - began
            runners.await_running(sizes.running)
            note = f"{sizes.running} tasks ran after {time.monotonic() - began:.1f} s"
            yield Figure(SECTION, f"{sizes.nodes} runners enrolled", round(joined, 1), "s", note=note)
            yield from _under_watch(cluster, runners, sizes)
            yield from _restart(cluster, runners, sizes)
            yield _submissions(cluster)


def _under_watch(cluster: Cluster, runners: Playing, sizes: Sizes) -> Iterator[Figure]:
    """20 ends and 20 lists of nodes a second, ten writes a second to an output that half of them follow."""
    task_id, log = _some_output(cluster)
    half = sizes.followers // 2
    following = Following(cluster.port, cluster.token, half, half, task_id)
    with followers(following) as watching, _growing(log):
        before, began = read(cluster), time.monotonic()
        beside = {"fake runners": runners.pid, "followers": watching.pid}
        spent_beside = {name: cpu_seconds(pid) for name, pid in beside.items()}
        runners.end_tasks(int(20 * sizes.seconds), sizes.seconds * 0.95)
        asked = _lists(cluster, sizes.seconds)
        ended = time.monotonic()
        spent, beats = read(cluster).since(before), runners.beats(began, ended)
        shares = [
            f"{name} {(cpu_seconds(pid) - spent_beside[name]) / (ended - began):.2f}"
            for name, pid in beside.items()
        ]
        followed = watching.finish()
    note = f"over {ended - began:.0f} s, {spent.placements:.0f} placements; beside it {', '.join(shares)}"
    yield Figure(SECTION, "host, CPU", round(spent.cpu / (ended - began), 2), "cores", 1.0, True, note)
    yield Figure(SECTION, "host, memory", resident_mib(host_pid(cluster)), "MiB")
    yield from _latencies(beats, asked)
    note = (
        f"{half} followers of events got {followed.event_bytes[0]} to {followed.event_bytes[1]} bytes each, "
        f"{half} of an output {followed.output_bytes[0]} to {followed.output_bytes[1]}"
    )
    yield Figure(SECTION, "followers that were lost", followed.ended, "of them", 0, True, note)
    late = scrape(cluster)["kohakuriver_loop_lag_seconds_longest"]
    yield Figure(SECTION, "event loop, latest since the start", round(late * 1000, 1), "ms")


def _latencies(beats: Beats, asked: Outcome) -> Iterator[Figure]:
    took = summary(beats.seconds)
    note = f"{took['n']:.0f} heartbeats, median {took['median_ms']} ms, slowest {took['max_ms']} ms"
    yield Figure(SECTION, "heartbeat, p99", took["p99_ms"], "ms", 100.0, True, note)
    note = f"20 per s, median {asked.latency['median_ms']} ms, {asked.answer_bytes >> 10} KiB each"
    yield Figure(SECTION, "GET /api/nodes, p99", asked.latency["p99_ms"], "ms", 100.0, True, note)


def _some_output(cluster: Cluster) -> tuple[str, Path]:
    """A task that runs, and the file of its standard output."""
    ask = {"status": "running", "limit": 1}
    running = wait_for(lambda: cluster.api("GET", "/api/tasks", params=ask), "a task to run")
    task_id = str(running[0]["task_id"])
    log = cluster.shared / "logs" / task_id / "stdout.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    return task_id, log


def _lists(cluster: Cluster, seconds: float) -> Outcome:
    ask = Load(cluster.port, "GET", "/api/nodes", cluster.token, int(20 * seconds), 4, rate=20)
    return finish_load(start_load(ask))


@contextlib.contextmanager
def _growing(log: Path) -> Iterator[None]:
    """Write a line to the file ten times a second."""
    enough = threading.Event()

    def write() -> None:
        number = 0
        with log.open("ab", buffering=0) as file:
            while not enough.wait(0.1):
                file.write(f"epoch {number}: loss 0.{number:06d}\n".encode())
                number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        enough.set()
        writer.join()


def _restart(cluster: Cluster, runners: Playing, sizes: Sizes) -> Iterator[Figure]:
    assert cluster.host is not None
    stopped = time.monotonic()
    cluster.host.end()
    began = time.monotonic()
    cluster.start_host()
    healthy = time.monotonic()
    back = runners.await_all_back(stopped)
    note = f"stopped within {began - stopped:.1f} s"
    yield Figure(SECTION, "host, from start to its first answer", round(healthy - began, 1), "s", note=note)
    note = f"heartbeats of all {sizes.nodes} taken in, counted from the first answer"
    yield Figure(SECTION, "all runners back", round(back - healthy, 1), "s", 30.0, True, note)


def _submissions(cluster: Cluster) -> Figure:
    body = json.dumps({"task_type": "command", "command": "x", "required_cores": QUEUED_CORES})
    count = 3_000
    before = read(cluster)
    outcome = run_load(Load(cluster.port, "POST", "/api/submit", cluster.token, count, 32, body))
    spent = read(cluster).since(before)
    note = (
        f"32 connections, p99 {outcome.latency['p99_ms']} ms, {spent.cpu * 1000 / count:.2f} ms of CPU each"
    )
    return Figure(SECTION, "submissions with all that in the store", round(outcome.rate), "per s", note=note)


PARTS = {"placing": placing, "curve": curve, "steady": steady}
