"""The host by itself: submissions, whole lives of tasks against fake runners, and lists that are polled."""

import json
import time
from collections.abc import Iterator

from bench.clusters import host_alone
from bench.load import Load, Outcome, run_load, start_load
from bench.measuring import Figure, cpu_seconds, summary
from bench.playing import Play, playing
from bench.seeding import Seed
from support.cluster.cluster import Cluster, free_port

SECTION = "host alone"
_TRUE = json.dumps({"task_type": "command", "command": "true"})
_CLIENTS = 8
_NODES = 1_000
_TASKS = 100_000


def measure(quick: bool) -> Iterator[Figure]:
    yield from _submissions(2_000 if quick else 10_000)
    yield from _whole_lives(1_500 if quick else 5_000)
    yield from _lists(500 if quick else 3_000)


def _submit(cluster: Cluster, count: int, connections: int = 32) -> Load:
    return Load(cluster.port, "POST", "/api/submit", cluster.token, count, connections, _TRUE)


def _host_pid(cluster: Cluster) -> int:
    assert cluster.host is not None
    assert cluster.host.process is not None
    return cluster.host.process.pid


def _submissions(count: int) -> Iterator[Figure]:
    """32 connections, one task each time, no node: what it costs to take a task in for good."""
    with host_alone() as cluster:
        run_load(_submit(cluster, 200))
        before = cpu_seconds(_host_pid(cluster))
        outcome = run_load(_submit(cluster, count))
        cpu_ms = (cpu_seconds(_host_pid(cluster)) - before) * 1000 / count
    note = f"{count} over 32 connections, p99 {outcome.latency['p99_ms']} ms, {cpu_ms:.2f} ms of CPU each"
    yield Figure(SECTION, "submissions", round(outcome.rate, 1), "per s", 1000, note=note)


def _whole_lives(count: int) -> Iterator[Figure]:
    with host_alone() as cluster:
        play = Play(cluster.port, cluster.token, free_port(), nodes=4)
        with playing(play) as runners:
            run_load(_submit(cluster, 200))
            runners.await_done(200)
            host, fakes = cpu_seconds(_host_pid(cluster)), cpu_seconds(runners.pid)
            outcome = run_load(_submit(cluster, count))
            ended = runners.await_done(200 + count)
            seconds = ended - outcome.began
            host, fakes = cpu_seconds(_host_pid(cluster)) - host, cpu_seconds(runners.pid) - fakes
            note = (
                f"{count} tasks, 4 nodes of 64 cores; CPU each: host {host * 1000 / count:.2f} ms, "
                f"fake runners {fakes * 1000 / count:.2f} ms; submitted at {outcome.rate:.0f} per s"
            )
            yield Figure(
                SECTION, "tasks, submitted to completed", round(count / seconds, 1), "per s", 500, note=note
            )
            yield _one_alone(cluster)


def _one_alone(cluster: Cluster) -> Figure:
    seconds = []
    for _ in range(100):
        began = time.perf_counter()
        cluster.status(cluster.submit("true"), wait_seconds=30)
        seconds.append(time.perf_counter() - began)
    told = summary(seconds)
    note = f"host's and protocol's part of a task's latency, p99 {told['p99_ms']} ms"
    return Figure(SECTION, "one task alone, submitted to completed", told["median_ms"], "ms", note=note)


def _lists(count: int) -> Iterator[Figure]:
    """1,000 nodes that beat every 5 s and 100,000 tasks; 8 clients ask as fast as they are answered."""
    with host_alone(Seed(past=_TASKS)) as cluster:
        play = Play(cluster.port, cluster.token, free_port(), nodes=_NODES, gpus=2)
        with playing(play):
            for path in ("/api/nodes", "/api/tasks?limit=1000"):
                ask = Load(cluster.port, "GET", path, cluster.token, count, _CLIENTS)
                run_load(Load(cluster.port, "GET", path, cluster.token, 20, _CLIENTS))
                yield _list_figure(f"GET {path}, p99", run_load(ask), 100.0)
                yield _list_figure(
                    f"GET {path}, p99 under submissions", _with_submissions(cluster, ask), None
                )


def _with_submissions(cluster: Cluster, ask: Load) -> Outcome:
    """The same while 20 tasks a second are submitted and run, each of which makes kept answers old."""
    token = cluster.token
    beside = start_load(Load(cluster.port, "POST", "/api/submit", token, 20 * 60 * 60, 4, _TRUE, rate=20))
    try:
        return run_load(ask)
    finally:
        beside.terminate()
        beside.wait(20)


def _list_figure(name: str, outcome: Outcome, target: float | None) -> Figure:
    told = outcome.latency
    note = (
        f"8 clients, median {told['median_ms']} ms, {outcome.rate:.0f} answers per s "
        f"of {outcome.answer_bytes >> 10} KiB"
    )
    return Figure(SECTION, name, told["p99_ms"], "ms", target, at_most=True, note=note)
