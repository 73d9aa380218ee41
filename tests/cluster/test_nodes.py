"""Runners that join, leave and come back; the host that is killed and comes back."""

import signal

import pytest

from support.cluster import Cluster, wait_for

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(300),
]


def test_a_second_runner_takes_work_by_target_and_by_itself(cluster: Cluster) -> None:
    by_target = cluster.finished(cluster.submit("true", targets=["kr-n2"]))
    assert by_target["assigned_node"] == "kr-n2"
    cores = sum(node["total_cores"] for node in cluster.listed_nodes() if node["status"] == "online")
    ids = [cluster.submit("sleep", "600", required_cores=1) for _ in range(cores)]
    records = [cluster.await_state(task_id, "running") for task_id in ids]
    assert {record["assigned_node"] for record in records} == {"kr-n1", "kr-n2"}
    for task_id in ids:
        cluster.client.post(f"/api/kill/{task_id}")
        cluster.finished(task_id)


def test_stopping_one_runner_changes_nothing_for_the_other(cluster: Cluster) -> None:
    cluster.add_runner("kr-n3")
    running = cluster.submit("sleep", "600", targets=["kr-n1"])
    cluster.await_state(running, "running")
    assert cluster.runners["kr-n3"].end() == 0
    cluster.await_node("kr-n3", "offline")
    assert cluster.status(running)["status"] == "running"
    assert cluster.finished(cluster.submit("true", targets=["kr-n1"]))["status"] == "completed"
    cluster.client.post(f"/api/kill/{running}")
    cluster.finished(running)


def test_a_runner_without_token_waits_until_its_fingerprint_is_approved(lone_host: Cluster) -> None:
    lone_host.add_runner("kr-waits", join=False, HOST_FINGERPRINT=lone_host.fingerprint)
    node = lone_host.await_node("kr-waits", "pending")
    wrong = lone_host.client.post("/api/nodes/kr-waits/approve", json={"fingerprint": "SHA256:wrong"})
    assert wrong.status_code == 404
    approved = lone_host.cli("node", "approve", "kr-waits", "--fingerprint", node["fingerprint"])
    assert approved.returncode == 0, approved.stderr
    lone_host.await_node("kr-waits")


@pytest.mark.parametrize("loses_its_journal", [False, True])
def test_a_runner_that_is_killed_takes_its_work_up_again(cluster: Cluster, loses_its_journal: bool) -> None:
    count = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo $i; sleep 0.1; done"
    task_id = cluster.submit("sh", "-c", count, targets=["kr-n2"])
    wait_for(lambda: cluster.output(task_id), "the first lines")
    runner = cluster.runners["kr-n2"]
    runner.end(signal.SIGKILL)
    if loses_its_journal:
        (runner.home / ".kohakuriver" / "runner" / "kr-n2" / "journal").unlink()
    runner.start()
    record = cluster.finished(task_id)
    assert record["status"] == "completed", record["error_message"]
    assert cluster.output(task_id) == "".join(f"{i}\n" for i in range(1, 61)).encode()
    cluster.await_node("kr-n2")


def test_a_host_that_is_killed_forgets_nothing(lone_host: Cluster) -> None:
    lone_host.add_runner("kr-alone")
    running = lone_host.submit("sh", "-c", "sleep 3; echo done")
    waiting = lone_host.submit("true", required_cores=10_000)
    lone_host.await_state(running, "running")
    assert lone_host.host is not None
    lone_host.host.end(signal.SIGKILL)
    lone_host.start_host()
    record = lone_host.finished(running)
    assert record["status"] == "completed"
    assert lone_host.output(running) == b"done\n"
    assert lone_host.status(waiting)["status"] == "pending"
