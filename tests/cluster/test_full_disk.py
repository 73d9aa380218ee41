"""The disk under the database of a real host is filled while a task runs and submissions come in."""

import sqlite3
from pathlib import Path

import httpx2
import pytest

from support.cluster import running_cluster, wait_for
from support.small_disk import small_disk

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(300),
]


def test_a_host_with_a_full_disk_says_so_and_loses_nothing_that_it_took_in(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        db_file = disk.path / "state" / "kohakuriver.db"
        with running_cluster(tmp_path / "cluster", DB_FILE=str(db_file)) as cluster:
            cluster.add_runner("kr-full-1")
            running = cluster.submit("sh", "-c", "while [ ! -e /shared/go ]; do sleep 0.1; done; echo done")
            cluster.await_state(running, "running")
            taken = [running]
            disk.fill()
            filler = {"FILLER": "x" * 1000}
            while (answer := _submit(cluster.client, filler)).status_code == 202:
                taken += answer.json()["task_ids"]
            assert answer.status_code == 503
            assert "full" in answer.json()["detail"]
            readiness = cluster.client.get("/readyz")
            assert readiness.status_code == 503
            assert [fault["part"] for fault in readiness.json()["faults"]] == ["store"]
            assert cluster.client.get("/healthz").status_code == 200
            # The task goes on; where there is no room to write its end down, that waits with its runner.
            (cluster.shared / "shared_data" / "go").touch()
            wait_for(lambda: b"done" in cluster.output(running), "the task to have gone on")
            assert cluster.status(running)["status"] in ("running", "completed")
            disk.empty()
            wait_for(lambda: cluster.client.get("/readyz").status_code == 200, "the host to be ready again")
            assert cluster.finished(running)["status"] == "completed"
            taken.append(cluster.submit("true", registry_image="none:here"))
            for task_id in taken:
                assert cluster.status(task_id)["task_id"] == task_id
        with sqlite3.connect(db_file) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert {str(row[0]) for row in connection.execute("SELECT id FROM tasks")} == set(taken)


def _submit(client: httpx2.Client, environment: dict[str, str]) -> httpx2.Response:
    body = {"task_type": "command", "command": "true", "env_vars": environment, "required_cores": 1000}
    return client.post("/api/submit", json=body)
