"""One test for each setting that says for how long something is kept: what is older goes, and no more."""

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.config import HostConfig
from kohakuriver.host.environments.environment_settings import EnvironmentTarballs
from kohakuriver.host.retention_parts import retention_of
from kohakuriver.host.store.records import Changes, TaskEvent
from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.host.store.store import Store
from kohakuriver.host.store.writes import apply_changes
from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import NodeStatus, TaskState, TaskType
from kohakuriver.models.events import EventKind
from kohakuriver.models.ids import EPOCH_MS, TaskId
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.vps import VpsSpec
from kohakuriver.wire.leftovers import NodeLeftovers, Removal, RemovalRequest
from kohakuriver.wire.messages import decode, encode
from support.cluster.cluster import Cluster, wait_for

pytestmark = [pytest.mark.xdist_group("host-settings"), pytest.mark.timeout(120)]
EVENTS, OUTPUT, TASKS = 5, 10, 30
AGES = (1, EVENTS - 1, EVENTS + 1, OUTPUT - 1, OUTPUT + 1, TASKS - 1, TASKS + 1)
SOON = """
from kohakuriver.cli.daemons import host_main
from kohakuriver.host.retention import retention

retention.FIRST_SWEEP_SECONDS = 0.2
host_main()
"""
"""A host whose first sweep does not take ten minutes to come."""


@dataclass
class Aged:
    """A host with tasks that ended so many days ago, before and after what was told first was removed."""

    cluster: Cluster
    ids: dict[int, str] = field(default_factory=dict)
    told: list[dict[str, Any]] = field(default_factory=list)
    removed: list[dict[str, Any]] = field(default_factory=list)

    def output(self, age: int) -> Path:
        return self.cluster.shared / "logs" / self.ids[age] / "stdout.log"

    def ages_with_output(self) -> list[int]:
        return [age for age in AGES if self.output(age).exists()]

    def known_ages(self) -> list[int]:
        listed = {task["task_id"] for task in self.cluster.api("GET", "/api/tasks")}
        return [age for age in AGES if self.ids[age] in listed]

    def prune(self, *options: str) -> list[dict[str, Any]]:
        done = self.cluster.cli("prune", "-o", "json", *options)
        assert (done.returncode, done.stderr) == (0, b"")
        items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
        return items

    def count(self, kind: str, items: list[dict[str, Any]]) -> int:
        (count,) = [item["count"] for item in items if (item["kind"], item["place"]) == (kind, "host")]
        return int(count)


def seed(aged: Aged) -> None:
    """Write the tasks where the host will find them, as it would have written them then."""
    now = datetime.now(UTC)
    changes = Changes()
    for age in reversed(AGES):
        ended = now - timedelta(days=age)
        task_id = TaskId(int((ended - timedelta(minutes=1)).timestamp() * 1000) - EPOCH_MS << 22)
        aged.ids[age] = str(task_id)
        path = aged.output(age)
        path.parent.mkdir(parents=True)
        path.write_text("text")
        changes.new_tasks[task_id] = Task(
            id=task_id,
            spec=TaskSpec("true"),
            state=TaskState.COMPLETED,
            owner="ada",
            submitted_at=ended,
            completed_at=ended,
            attempt=Attempt(1, "n1", stdout_path=str(path), stdout_bytes=4, end=TaskState.COMPLETED),
        )
        changes.events.append(TaskEvent(task_id, ended, EventKind.COMPLETED, 1))
    store = open_store(aged.cluster.database)
    asyncio.run(store.write(partial(apply_changes, changes=changes)))
    store.close()


@pytest.fixture(scope="module")
def aged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aged]:
    aged = Aged(Cluster(tmp_path_factory.mktemp("retention-settings")))
    seed(aged)
    try:
        aged.cluster.start_host(KEEP_OUTPUT_DAYS=OUTPUT, KEEP_TASKS_DAYS=TASKS, KEEP_EVENTS_DAYS=EVENTS)
        aged.told = aged.prune("--dry-run")
        assert aged.ages_with_output() == aged.known_ages() == list(AGES), "a look removes nothing"
        aged.removed = aged.prune()
        yield aged
    finally:
        aged.cluster.stop()


def test_keep_output_days(aged: Aged) -> None:
    assert aged.ages_with_output() == [age for age in AGES if age < OUTPUT]
    assert aged.count("output", aged.told) == aged.count("output", aged.removed) == 3


def test_keep_tasks_days(aged: Aged) -> None:
    assert aged.known_ages() == [age for age in AGES if age < TASKS]
    assert aged.count("tasks", aged.told) == aged.count("tasks", aged.removed) == 1


def test_keep_events_days(aged: Aged) -> None:
    assert aged.count("events", aged.told) == 5
    assert aged.count("events", aged.removed) == 4, "one went with its task"
    assert aged.count("events", aged.prune("--dry-run")) == 0


def test_what_was_removed_is_audited_and_counted(aged: Aged) -> None:
    log = (aged.cluster.host.log if aged.cluster.host else Path()).read_text()
    assert "prune" in log
    assert "3 output on host" in log
    done = aged.cluster.cli("prune", "--dry-run")
    assert done.returncode == 0
    assert b"KEPT FOR" in done.stdout
    assert f"{TASKS}d".encode() in done.stdout


def test_a_host_removes_it_by_itself(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    aged = Aged(cluster)
    seed(aged)
    try:
        cluster.start_host(KEEP_OUTPUT_DAYS=OUTPUT, KEEP_TASKS_DAYS=TASKS, KEEP_EVENTS_DAYS=EVENTS)
        assert cluster.host is not None
        cluster.host.end()
        assert aged.ages_with_output() == list(AGES), "not at once"
        cluster.host.argv = [sys.executable, "-c", SOON, *cluster.host.argv[1:]]
        cluster.host.start()
        cluster.await_health()
        wait_for(lambda: aged.ages_with_output() == [age for age in AGES if age < OUTPUT], "the output to go")
        wait_for(lambda: aged.known_ages() == [age for age in AGES if age < TASKS], "the records to go")
    finally:
        cluster.stop()


# What a node is asked for: its part is tested with the node (tests/unit/runner/test_leftovers.py).


@dataclass
class OneNode:
    """The host's neighbours, of which only a node that answers is there."""

    store: Store
    requests: list[RemovalRequest] = field(default_factory=list)
    told: NodeLeftovers = field(default_factory=NodeLeftovers)
    cluster_id: str = "here"

    @property
    def control(self) -> "OneNode":
        return self

    runners = environments = nodes = tasks = control

    def openness(self) -> dict[str, tuple[NodeStatus, str]]:
        return {"n1": (NodeStatus.ONLINE, ""), "n2": (NodeStatus.OFFLINE, "")}

    def records_removed(self) -> None:
        return None

    async def wanted_images(self) -> set[str]:
        return {"ubuntu:24.04"}

    async def list_tarballs(self) -> list[EnvironmentTarballs]:
        return []

    async def call(self, node: str, _method: str, target: str, body: bytes, _seconds: float) -> bytes:
        assert node == "n1"
        if target == "/api/leftovers":
            return encode(self.told)
        self.requests.append(decode(body, RemovalRequest))
        return encode(Removal())


def request_with(folder: Path, ended_days_ago: int = 0, **settings: int) -> RemovalRequest:
    """What a host with these settings asks n1 to remove, which has snapshots of a killed VPS."""
    store = open_store(folder / "host.db")
    ended = datetime.now(UTC) - timedelta(days=ended_days_ago)
    spec = TaskSpec("", task_type=TaskType.VPS, vps=VpsSpec())
    killed = Task(TaskId(7), spec, TaskState.KILLED, "ada", ended, completed_at=ended)
    node = OneNode(store, told=NodeLeftovers(sessions=["7"]))
    config = HostConfig(shared_dir=str(folder), **settings)  # type: ignore[arg-type]

    async def play() -> None:
        await store.write(partial(apply_changes, changes=Changes(new_tasks={killed.id: killed})))
        retention = retention_of(config, node)  # type: ignore[arg-type]
        await retention.sweep()
        retention.close()

    asyncio.run(play())
    store.close()
    (request,) = node.requests
    return request


def test_keep_snapshots_days(tmp_path: Path) -> None:
    for name, days, goes in (("kept", 8, False), ("gone", 6, True), ("ever", 0, False)):
        (tmp_path / name).mkdir()
        request = request_with(tmp_path / name, ended_days_ago=7, keep_snapshots_days=days)
        assert request.sessions == (["7"] if goes else [])


def test_keep_images_days(tmp_path: Path) -> None:
    request = request_with(tmp_path, keep_images_days=17)
    assert (request.images_days, request.dry_run) == (17, False)
    assert request.needed_images == ["kohakuriver-base", "ubuntu:24.04"]
    assert request.environments is None, "no environment at all looks like a folder that is not mounted"


def test_keep_local_temp_days(tmp_path: Path) -> None:
    assert request_with(tmp_path, keep_local_temp_days=23).local_temp_days == 23
