"""Host, runner and the machine's Docker engine, beside the bare Docker API with the same image."""

import asyncio
import json
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bench import bare_docker
from bench.clusters import NODE, real_cluster
from bench.load import Load, run_load
from bench.measuring import Figure, spread, summary
from kohakuriver.dockerapi.client import DockerApi
from support.cluster.cluster import Cluster

SECTION = "real cluster"
_PAUSE_SECONDS = 1.0
"""Between single tasks, so that the cluster is idle again: the sandbox is checked, the pool is full."""


def measure(quick: bool) -> Iterator[Figure]:
    with (
        real_cluster(**wide_network()) as (cluster, image),
        asyncio.Runner() as runner,
    ):
        api = runner.run(DockerApi.connect())
        try:
            yield from _latency(cluster, runner, api, image, 8 if quick else 30)
            yield from _running_reported(cluster, 8 if quick else 30)
            yield from _bursts(cluster, runner, api, image, 60 if quick else 300)
        finally:
            runner.run(api.close())


def wide_network() -> dict[str, Any]:
    """Addresses enough for some hundred sandboxes at once."""
    return {"DOCKER_NETWORK_SUBNET": "10.239.0.0/16", "DOCKER_NETWORK_GATEWAY": "10.239.0.1"}


def _latency(
    cluster: Cluster, runner: asyncio.Runner, api: DockerApi, image: str, count: int
) -> Iterator[Figure]:
    """Alternately, so that other work on the machine meets both alike."""
    bare, ours = [], []
    for number in range(count + 1):
        time.sleep(_PAUSE_SECONDS)
        bare_seconds = runner.run(bare_docker.run_one(api, image))
        time.sleep(_PAUSE_SECONDS)
        began = time.perf_counter()
        record = cluster.finished(cluster.submit("true"))
        our_seconds = time.perf_counter() - began
        if record["status"] != "completed":
            raise RuntimeError(f"a task has failed: {record['error_message']}")
        if number:  # the first of each warms up
            bare.append(bare_seconds)
            ours.append(our_seconds)
    ours_told, bare_told = summary(ours), summary(bare)
    yield Figure(
        SECTION, "bare Docker API, one container", bare_told["median_ms"], "ms", note=spread(bare_told)
    )
    yield Figure(
        SECTION, "`true`, submitted to completed", ours_told["median_ms"], "ms", note=spread(ours_told)
    )
    ratio = ours_told["median_ms"] / bare_told["median_ms"]
    fastest = ours_told["min_ms"] / bare_told["min_ms"]
    note = f"medians of {count}, taken alternately; fastest to fastest: {fastest:.2f}"
    yield Figure(SECTION, "  of the bare time", round(ratio, 2), "x", 0.65, at_most=True, note=note)


def _running_reported(cluster: Cluster, count: int) -> Iterator[Figure]:
    """From the engine's start event to the host's record, and to a client that keeps asking."""
    with EngineStarts() as starts:
        taken_in, seen = [], []
        for _ in range(count):
            time.sleep(_PAUSE_SECONDS)
            task_id = cluster.submit("sleep", "1")
            while cluster.status(task_id)["status"] != "running":
                time.sleep(0.002)
            seen_at = time.time()
            started = starts.started(task_id)
            seen.append(seen_at - started)
            taken_in.append(_running_at(cluster, task_id) - started)
            cluster.finished(task_id)
    told, seen_told = summary(taken_in), summary(seen)
    note = f"engine's start event to the host's turn; median {told['median_ms']} ms, n = {count}"
    yield Figure(SECTION, "`running` reported, p99", told["p99_ms"], "ms", 30, at_most=True, note=note)
    note = f"asked every 2 ms, commit and question included; median {seen_told['median_ms']} ms"
    yield Figure(
        SECTION, "`running` seen by a client, p99", seen_told["p99_ms"], "ms", 30, at_most=True, note=note
    )


def _running_at(cluster: Cluster, task_id: str) -> float:
    """When the host took the report of `running` in, from the task's history in the store."""
    with sqlite3.connect(f"file:{cluster.root}/state/kohakuriver.db?mode=ro", uri=True) as database:
        query = "SELECT min(at) FROM task_events WHERE task_id = ? AND kind = 'running'"
        return float(database.execute(query, (int(task_id),)).fetchone()[0]) / 1e6


class EngineStarts:
    """The engine's own start events of our node's containers, while it is open."""

    def __enter__(self) -> "EngineStarts":
        filters = ("type=container", "event=start", f"label=kohakuriver.node={NODE}")
        argv = ["docker", "events", "--format", "{{json .}}"]
        self._process = subprocess.Popen(
            [*argv, *(part for one in filters for part in ("--filter", one))], stdout=subprocess.PIPE
        )
        self._starts: dict[str, float] = {}
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        time.sleep(0.5)  # docker events says nothing when it is ready
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            task_id = event["Actor"]["Attributes"].get("kohakuriver.task_id")
            if task_id is not None:
                with self._news:
                    self._starts.setdefault(task_id, event["timeNano"] / 1e9)
                    self._news.notify_all()

    def started(self, task_id: str) -> float:
        """Unix time of the start of the task's container."""
        with self._news:
            if not self._news.wait_for(lambda: task_id in self._starts, 10):
                raise TimeoutError(f"the engine has reported no start of task {task_id}")
            return self._starts[task_id]


def _bursts(
    cluster: Cluster, runner: asyncio.Runner, api: DockerApi, image: str, count: int
) -> Iterator[Figure]:
    """As many at once as there are cores, and all at once.

    The bare rate is taken before and after, since other work on the machine comes and goes.
    """
    for at_once, task_cores in ((os.cpu_count() or 1, 1), (count, 0)):
        bare_count = max(count // 2, at_once)
        before = runner.run(bare_docker.rate(api, image, bare_count, at_once))
        burst = run_burst(cluster, count, task_cores)
        after = runner.run(bare_docker.rate(api, image, bare_count, at_once))
        name = f"{count} tasks of {task_cores} cores, bare with {at_once} at once"
        yield _burst_figure(name, count / burst.seconds, (before, after), burst.submitting)


@dataclass(frozen=True)
class Burst:
    """From the first submission to the last end, and of that the time until all were submitted."""

    seconds: float
    submitting: float
    task_ids: list[str]


def run_burst(cluster: Cluster, count: int, task_cores: int, seconds: float = 1800, **fields: Any) -> Burst:
    """Submit so many `true` at once, or what `fields` say, and wait for all."""
    name = f"burst-{time.monotonic_ns()}"
    body = json.dumps({"command": "true", "required_cores": task_cores, "name": name, **fields})
    load = Load(cluster.port, "POST", "/api/submit", cluster.token, count, 16, body)
    outcome = run_load(load)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended = _ended(cluster, name)
        if len(ended) >= count:
            last = max(datetime.fromisoformat(record["completed_at"]) for record in ended)
            submitted = min(datetime.fromisoformat(record["submitted_at"]) for record in ended)
            took = (last - submitted).total_seconds()
            return Burst(took, outcome.ended - outcome.began, [str(record["task_id"]) for record in ended])
        time.sleep(0.5)
    raise TimeoutError(f"{len(ended)} of {count} tasks have ended in {seconds:.0f} s")


def _ended(cluster: Cluster, name: str) -> list[dict[str, str]]:
    """Completed tasks of a burst; raises RuntimeError if one has come to another end."""
    records = cluster.api("GET", "/api/tasks", params={"name": name, "limit": 1000})
    failed = [record for record in records if record["status"] in ("failed", "lost", "killed", "killed_oom")]
    if failed:
        raise RuntimeError(f"{len(failed)} tasks have failed, the first with: {failed[0]['error_message']}")
    return [record for record in records if record["status"] == "completed"]


def _burst_figure(name: str, ours: float, bare: tuple[float, float], submitting: float) -> Figure:
    ratio = ours / (sum(bare) / 2)
    note = (
        f"ours {ours:.2f} per s, bare {bare[0]:.2f} before and {bare[1]:.2f} after; "
        f"submitted within {submitting:.1f} s"
    )
    return Figure(SECTION, name, round(ratio, 2), "x", 1.3, note=note)
