"""A backup of a real host is restored while its node runs newer work: none is ended, none is done twice."""

import signal
import subprocess
from pathlib import Path

import pytest

from support.cluster import Cluster, free_port, running_cluster, wait_for

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(300),
]

_WAIT = 'echo start >> /shared/$0-starts; while [ ! -e /shared/$0-go ]; do sleep 0.1; done; echo "$0 done"'


def _submit(cluster: Cluster, name: str, cores: int) -> str:
    return cluster.submit("sh", "-c", _WAIT, name, required_cores=cores)


def _let_go(cluster: Cluster, name: str) -> None:
    (cluster.shared / "shared_data" / f"{name}-go").touch()


def _starts(cluster: Cluster, name: str) -> int:
    path = cluster.shared / "shared_data" / f"{name}-starts"
    return len(path.read_text().splitlines()) if path.exists() else 0


def _backup(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return cluster.cli("backup", *arguments, "--config", str(cluster.root / "host_config.py"))


def test_a_restored_host_goes_on_with_nodes_that_run_newer_work(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "cluster") as cluster:
        cluster.add_runner("kr-bk-1")
        file = str(tmp_path / "backup")
        first, second = _submit(cluster, "first", 2), _submit(cluster, "second", 2)
        cluster.await_state(first, "running")
        made = _backup(cluster, "create", file)
        assert made.returncode == 0, made.stderr
        told = cluster.cli("backup", "verify", file).stdout.decode()
        assert "1 pending, 1 running" in told
        assert "kr-bk-1" in told

        _let_go(cluster, "first")
        assert cluster.finished(first)["status"] == "completed"
        cluster.await_state(second, "running")
        newer, unwanted = _submit(cluster, "newer", 0), _submit(cluster, "unwanted", 0)
        cluster.await_state(newer, "running")
        cluster.await_state(unwanted, "running")

        refused = _backup(cluster, "restore", file, "--force")
        assert refused.returncode == 1
        assert b"a host runs on the database" in refused.stderr
        assert cluster.host is not None
        cluster.host.end(signal.SIGKILL)
        restored = _backup(cluster, "restore", file, "--force")
        assert restored.returncode == 0, restored.stderr
        assert b"What was there before is in" in restored.stdout
        cluster.start_host()
        cluster.await_node("kr-bk-1")

        # What waited in the backup was found running; what is not known any more was left alone.
        assert cluster.await_state(second, "running")["attempt"] == 1
        assert cluster.client.get(f"/api/status/{newer}").status_code == 404
        _let_go(cluster, "second")
        assert cluster.finished(second)["status"] == "completed"
        assert cluster.output(second) == b"second done\n"
        ended = cluster.status(first)
        assert ended["status"] == "failed"
        assert "how it ended is not known" in ended["error_message"]
        assert cluster.output(first) == b"first done\n"

        fresh = _submit(cluster, "fresh", 1)
        assert int(fresh) > int(newer)
        _let_go(cluster, "newer")
        _let_go(cluster, "fresh")
        # Nothing is put beside what the ledger does not count, until it ends or somebody ends it on its node.
        assert "lost when it was restored" in str(cluster.status(fresh))
        subprocess.run(["docker", "kill", f"kohakuriver-task-{unwanted}"], check=True, capture_output=True)
        assert cluster.finished(fresh)["status"] == "completed"
        log = cluster.shared / "logs" / newer / "stdout.log"
        wait_for(lambda: log.read_bytes() == b"newer done\n", "the newer work to come to its end")
        assert [_starts(cluster, name) for name in ("first", "second", "newer", "fresh")] == [1, 1, 1, 1]


def test_a_second_host_on_one_database_is_refused(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "cluster") as cluster:
        second = subprocess.run(
            [*(cluster.host.argv if cluster.host else []), "--port", str(free_port())],
            capture_output=True,
            timeout=60,
            check=False,
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        )
        assert second.returncode == 1
        assert b"a host runs on the database" in second.stderr
        assert cluster.client.get("/api/nodes").status_code == 200
