"""VPSs on a real cluster, by the command line: what is in them outlives stops, moves and dead daemons."""

import json
import signal
import sqlite3

import pytest

from support.cluster.cluster import Cluster, wait_for
from support.cluster.vps import (
    container_id,
    inside,
    is_paused,
    snapshot_images,
    snapshots,
    vps,
    vps_on,
)

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(300),
]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMbhlrtnfwdJuCYfl1gX3ZyPlAzqNo1QTDsdTcaibhIj"


def test_what_is_in_a_vps_is_there_after_a_stop_and_a_restart(cluster: Cluster) -> None:
    with vps_on(cluster, "kr-n1") as task_id:
        before = cluster.status(task_id)
        inside(task_id, "mkdir -p /deep; echo kept > /deep/file; ln -s file /deep/link")
        inside(task_id, "echo 10.9.9.9 db >> /etc/hosts")
        vps(cluster, "stop", task_id)
        assert cluster.status(task_id)["status"] == "stopped"
        assert container_id(task_id) is None
        assert len(snapshots(cluster, task_id)) == 1
        vps(cluster, "restart", task_id)
        after = cluster.status(task_id)
        assert (after["status"], after["assigned_node"]) == ("running", "kr-n1")
        assert (after["attempt"], after["address"]) == (2, before["address"])
        assert inside(task_id, "cat /deep/link") == "kept\n"
        assert inside(task_id, "tail -n 1 /etc/hosts") == "10.9.9.9 db\n"


_LAST_WORDS = """
(trap 'echo saved > /last-words; exit 0' TERM; : > /begun; while :; do sleep 0.05; done) > /dev/null 2>&1 &
while [ ! -e /begun ]; do sleep 0.05; done
"""


def test_what_runs_in_a_vps_ends_in_order_before_it_is_kept(cluster: Cluster) -> None:
    with vps_on(cluster, "kr-n1") as task_id:
        inside(task_id, _LAST_WORDS)
        vps(cluster, "stop", task_id)
        vps(cluster, "restart", task_id)
        assert inside(task_id, "cat /last-words") == "saved\n"


def test_a_restart_of_what_runs_keeps_its_files(cluster: Cluster) -> None:
    with vps_on(cluster, "kr-n1") as task_id:
        inside(task_id, "echo kept > /kept")
        first = container_id(task_id)
        vps(cluster, "restart", task_id)
        assert container_id(task_id) not in (None, first)
        assert inside(task_id, "cat /kept") == "kept\n"


def test_the_name_is_the_host_name_and_no_other_vps_can_have_it(cluster: Cluster) -> None:
    with vps_on(cluster, "kr-n1", "lab-one") as task_id:
        assert inside(task_id, "hostname") == "lab-one\n"
        again = cluster.cli("vps", "create", "lab-one")
        assert again.returncode == 1
        assert b"lab-one" in again.stderr
        assert task_id in vps(cluster, "status", "lab-one")
        assert task_id in vps(cluster, "list", "--active", "-o", "name")


def test_a_kill_ends_it_without_a_snapshot_and_leaves_those_of_before(cluster: Cluster) -> None:
    with vps_on(cluster, "kr-n1") as task_id:
        vps(cluster, "snapshot", "create", task_id, "-m", "by hand")
        vps(cluster, "kill", task_id)
        assert cluster.finished(task_id)["status"] == "killed"
        wait_for(lambda: container_id(task_id) is None, "its container to be removed")
        assert [found["message"] for found in snapshots(cluster, task_id)] == ["by hand"]
        vps(cluster, "snapshot", "delete", task_id, "--all")
        assert snapshots(cluster, task_id) == []
        assert snapshot_images(task_id) == []


def test_a_paused_vps_goes_on_where_it_was_and_can_be_stopped(cluster: Cluster) -> None:
    with vps_on(cluster, "kr-n1") as task_id:
        inside(task_id, "echo kept > /kept")
        vps(cluster, "pause", task_id)
        wait_for(lambda: is_paused(task_id), "it to be frozen")
        cluster.await_state(task_id, "paused")
        vps(cluster, "resume", task_id)
        cluster.await_state(task_id, "running")
        assert not is_paused(task_id)
        vps(cluster, "pause", task_id)
        cluster.await_state(task_id, "paused")
        vps(cluster, "stop", task_id)
        vps(cluster, "restart", task_id)
        assert inside(task_id, "cat /kept") == "kept\n"


def test_a_chosen_snapshot_is_gone_back_to(cluster: Cluster) -> None:
    with vps_on(cluster, "kr-n1") as task_id:
        inside(task_id, "echo first > /kept")
        time = vps(cluster, "snapshot", "create", task_id, "-m", "the first", "-o", "name").strip()
        inside(task_id, "echo second > /kept")
        vps(cluster, "snapshot", "create", task_id, "-m", "the second")
        shown = vps(cluster, "snapshot", "list", task_id)
        assert shown.index("the second") < shown.index("the first")
        vps(cluster, "snapshot", "restore", task_id, time)
        assert inside(task_id, "cat /kept") == "first\n"
        vps(cluster, "snapshot", "delete", task_id, time)
        assert time not in [str(found["timestamp"]) for found in snapshots(cluster, task_id)]


def test_a_stopped_vps_is_moved_to_another_node_over_shared_storage(cluster: Cluster) -> None:
    with vps_on(cluster, "kr-n1") as task_id:
        inside(task_id, "echo kept > /kept; echo 10.9.9.9 db >> /etc/hosts")
        refused = cluster.cli("vps", "restore", task_id, "--to", "kr-n2")
        assert refused.returncode != 0
        assert cluster.status(task_id)["assigned_node"] == "kr-n1"
        vps(cluster, "stop", task_id)
        (kept,) = snapshots(cluster, task_id)
        vps(cluster, "restore", task_id, "--to", "kr-n2")
        assert cluster.status(task_id)["assigned_node"] == "kr-n2"
        assert inside(task_id, "cat /kept") == "kept\n"
        assert inside(task_id, "tail -n 1 /etc/hosts") == "10.9.9.9 db\n"
        assert inside(task_id, "tail -n 2 /etc/hosts").startswith(cluster.status(task_id)["address"])
        folder = cluster.shared / "kohakuriver-snapshots" / f"vps-{task_id}"
        assert [path.name for path in folder.iterdir()] == [f"{kept['timestamp']}.tar"]


def test_an_image_that_cannot_have_ssh_fails_with_a_sentence(cluster: Cluster) -> None:
    done = cluster.cli("vps", "create", "-t", "kr-n1", "--public-key-string", KEY, "-o", "name")
    task_id = done.stdout.decode().strip()
    assert done.returncode == 1
    assert b"ssh" in done.stderr
    assert cluster.status(task_id)["status"] == "failed"
    wait_for(lambda: container_id(task_id) is None, "its container to be removed")


def test_a_vps_outlives_its_runner_and_its_host(lone_host: Cluster) -> None:
    lone_host.add_runner("kr-alone")
    with vps_on(lone_host, "kr-alone") as task_id:
        inside(task_id, "echo kept > /kept; (while :; do sleep 1; done) > /dev/null 2>&1 &")
        before = container_id(task_id)
        lone_host.runners["kr-alone"].end(signal.SIGKILL)
        lone_host.runners["kr-alone"].start()
        lone_host.await_node("kr-alone")
        assert lone_host.host is not None
        lone_host.host.end(signal.SIGKILL)
        lone_host.start_host()
        lone_host.await_node("kr-alone")
        assert (lone_host.status(task_id)["status"], container_id(task_id)) == ("running", before)
        vps(lone_host, "stop", task_id)
        vps(lone_host, "restart", task_id)
        assert inside(task_id, "cat /kept") == "kept\n"


def test_a_vps_whose_runner_dies_while_it_is_stopped_is_stopped_with_what_is_in_it(
    lone_host: Cluster,
) -> None:
    runner = lone_host.add_runner("kr-alone")
    with vps_on(lone_host, "kr-alone") as task_id:
        inside(task_id, "echo kept > /kept")
        runner.end(signal.SIGKILL)
        assert lone_host.cli("vps", "stop", task_id, "--no-wait").returncode == 0
        runner.start()
        lone_host.await_state(task_id, "stopped")
        # Its engine was opened after the beat with which it came back.
        wait_for(lambda: not lone_host.await_node("kr-alone")["faults"], "the node to take work")
        vps(lone_host, "restart", task_id)
        assert inside(task_id, "cat /kept") == "kept\n"


def test_a_deleted_vps_leaves_nothing_on_any_node_and_nothing_in_shared_storage(cluster: Cluster) -> None:
    with vps_on(cluster, "kr-n1") as task_id:
        inside(task_id, "echo mine > /kept")
        refused = cluster.cli("vps", "delete", task_id, "-y")
        assert refused.returncode == 1
        assert b"vps stop" in refused.stderr
        vps(cluster, "stop", task_id)
        vps(cluster, "restore", task_id, "--to", "kr-n2")
        vps(cluster, "stop", task_id)
        exported = cluster.shared / "kohakuriver-snapshots" / f"vps-{task_id}"
        assert exported.is_dir()
        assert snapshot_images(task_id)
        assert "is deleted" in vps(cluster, "delete", task_id, "-y")
        assert not exported.exists()
        assert not (cluster.shared / "logs" / task_id).exists()
        assert snapshot_images(task_id) == []
        assert cluster.cli("vps", "status", task_id).returncode == 3
        assert task_id not in vps(cluster, "list", "-o", "name")


def test_snapshots_of_a_killed_vps_go_when_their_time_is_over(cluster: Cluster) -> None:
    with vps_on(cluster, "kr-n1") as task_id:
        vps(cluster, "snapshot", "create", task_id)
        vps(cluster, "kill", task_id)
        cluster.finished(task_id)
        wait_for(lambda: container_id(task_id) is None, "its container to be removed")
        assert cluster.cli("prune").returncode == 0
        assert len(snapshot_images(task_id)) == 1
        with sqlite3.connect(cluster.database, timeout=30) as database:
            earlier = 31 * 86_400 * 1_000_000
            change = "UPDATE tasks SET completed_at = completed_at - ? WHERE id = ?"
            database.execute(change, (earlier, int(task_id)))
        told = json.loads(cluster.cli("prune", "--dry-run", "-o", "json").stdout)
        (item,) = [i for i in told["items"] if (i["kind"], i["place"]) == ("snapshots", "kr-n1")]
        assert item["count"] >= 1
        done = cluster.cli("prune")
        assert (done.returncode, done.stderr) == (0, b"")
        assert snapshot_images(task_id) == []
        assert cluster.status(task_id)["status"] == "killed", "its record is kept for longer"
        (record,) = cluster.runners["kr-n1"].home.rglob("used_images.json")
        assert "environment kohakuriver-base" in json.loads(record.read_text()), "uses of images are noted"
