"""Who a node is, and whose its containers are: machines that were renamed, clusters that share an engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import Cluster, Daemon, in_uts_namespace, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.root]


def renamed(cluster: Cluster, old: str, new: str, home: Path | None = None) -> Daemon:
    """End the runner `old` and start it on a machine with another name, by default in the same home."""
    before = cluster.runners[old]
    before.end()
    home = home or before.home
    daemon = Daemon(new, home, in_uts_namespace(new, cluster.root / f"{old}.py"))
    cluster.runners[new] = daemon
    daemon.start()
    return daemon


def joined_anew(cluster: Cluster, old: str, new: str) -> Daemon:
    """The same machine under another name and with another key: its home was made anew."""
    with (cluster.root / f"{old}.py").open("a") as config:
        config.write(f"JOIN_TOKEN = {cluster.join_token()!r}\n")
    return renamed(cluster, old, new, cluster.root / f"{new}-home")


def node(cluster: Cluster, name: str) -> dict[str, object] | None:
    return next((each for each in cluster.listed_nodes() if each["hostname"] == name), None)


def test_a_renamed_machine_stays_its_node_and_gives_nothing_out_twice(lone_host: Cluster) -> None:
    cluster = lone_host
    cluster.add_runner("kr-born")
    cores = cluster.listed_nodes()[0]["total_cores"]
    task = cluster.submit("sleep", "600", required_cores=cores)
    cluster.await_state(task, "running")
    renamed(cluster, "kr-born", "kr-renamed")
    told = wait_for(lambda: (node(cluster, "kr-born") or {}).get("notices"), "the notice of the new name")
    assert ["is called kr-renamed now, and its node keeps the name kr-born" in text for text in told] == [
        True
    ]
    assert [(each["hostname"], each["cores_used"]) for each in cluster.listed_nodes()] == [("kr-born", cores)]
    assert cluster.status(task)["status"] == "running"
    cluster.api("POST", f"/api/kill/{task}")
    assert cluster.finished(task)["status"] == "killed"


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Cluster]:
    """A host that counts a node as gone soon."""
    cluster = Cluster(tmp_path)
    try:
        cluster.start_host(HEARTBEAT_TIMEOUT_FACTOR=2)
        yield cluster
    finally:
        cluster.stop()


@pytest.mark.parametrize("choice", ["adopt", "end"])
def test_a_machine_that_joins_anew_counts_its_old_work_until_somebody_decides(
    impatient: Cluster, choice: str
) -> None:
    cluster = impatient
    cluster.add_runner("kr-before")
    cores = cluster.listed_nodes()[0]["total_cores"]
    task = cluster.submit("sleep", "600", required_cores=cores)
    cluster.await_state(task, "running")
    joined_anew(cluster, "kr-before", "kr-after")
    cluster.await_node("kr-after")
    left = wait_for(lambda: (node(cluster, "kr-after") or {}).get("leftovers"), "the old work to be shown")
    assert [(each["node"], each["task_id"], each["cores"]) for each in left] == [("kr-before", task, cores)]
    waiting = cluster.submit("true", required_cores=1)
    assert cluster.status(waiting, wait_seconds=1)["status"] == "pending"
    assert (node(cluster, "kr-after") or {})["cores_used"] == cores
    listed = cluster.cli("node", "leftovers", "kr-after")
    assert (b"kr-before" in listed.stdout, task.encode() in listed.stdout) == (True, True), listed
    decided = cluster.cli("node", "leftovers", "kr-after", f"--{choice}", "kr-before")
    assert decided.returncode == 0, decided.stderr
    if choice == "adopt":
        running = cluster.await_state(task, "running")
        assert (running["assigned_node"], running["attempt"]) == ("kr-after", 1)
        assert cluster.status(waiting)["status"] == "pending"
        cluster.api("POST", f"/api/kill/{task}")
    assert cluster.finished(task)["status"] == ("killed" if choice == "adopt" else "failed")
    assert cluster.finished(waiting)["status"] == "completed"
    assert [(each["hostname"], each["cores_used"]) for each in cluster.listed_nodes()] == [("kr-after", 0)]


@pytest.fixture
def other_cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path / "other")
    try:
        cluster.start_host()
        yield cluster
    finally:
        cluster.stop()


def test_two_clusters_with_a_node_of_one_name_leave_each_others_work_alone(
    lone_host: Cluster, other_cluster: Cluster
) -> None:
    lone_host.add_runner("kr-shared")
    task = lone_host.submit("sleep", "600")
    lone_host.await_state(task, "running")
    other_cluster.add_runner("kr-shared")
    theirs = other_cluster.submit("sleep", "600")
    other_cluster.await_state(theirs, "running")
    other_cluster.runners["kr-shared"].end()
    other_cluster.runners["kr-shared"].start()
    # A task that runs to its end there was judged after everything that the runner found at its start.
    last = other_cluster.submit("echo", "done")
    assert other_cluster.finished(last)["status"] == "completed"
    assert [lone_host.status(task)["status"], other_cluster.status(theirs)["status"]] == ["running"] * 2
    lone_host.api("POST", f"/api/kill/{task}")
    assert lone_host.finished(task)["status"] == "killed"
