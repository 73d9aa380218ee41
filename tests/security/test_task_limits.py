"""What a task or VPS cannot take from its node: all processes, all memory, its daemons (line 29)."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kohakuriver.oom_score import DAEMON_SCORE_ADJ
from support.cluster.cluster import Cluster, wait_for
from support.cluster.vps import container_name, inside, vps_on

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(300)]

NODE = "kr-tight"
MOST_PROCESSES = 60
MEMORY_BYTES = 64 << 20
BOMB = "i=0; while [ $i -lt 400 ]; do sleep 300 & i=$((i+1)); done; echo unlimited"
EATER = "head -c 150m /dev/zero | tail -c 150m >/dev/null && echo enough"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("tight"))
    node_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        cluster.start_host()
        cluster.add_runner(
            NODE, TASK_PIDS_LIMIT=MOST_PROCESSES, DEFAULT_MEMORY_LIMIT=MEMORY_BYTES / node_bytes
        )
        yield cluster
    finally:
        cluster.stop()


def _inspected(container: str, template: str) -> str:
    argv = ["docker", "inspect", "--format", template, container]
    return subprocess.run(argv, capture_output=True, check=True).stdout.decode().strip()


def test_a_fork_bomb_fails_and_says_so(cluster: Cluster) -> None:
    task_id = cluster.submit("sh", "-c", BOMB)
    record = cluster.finished(task_id)
    assert record["status"] == "failed"
    assert b"fork" in cluster.output(task_id, "stderr")
    assert b"unlimited" not in cluster.output(task_id)


def test_beside_a_fork_bomb_others_go_on(cluster: Cluster) -> None:
    bomb = cluster.submit("sh", "-c", f"({BOMB}); echo over; exec sleep 300")
    wait_for(lambda: b"over" in cluster.output(bomb), "the bomb to have gone off")
    assert b"unlimited" not in cluster.output(bomb)
    other = cluster.submit("echo", "all is well", required_cores=0)
    assert cluster.finished(other)["status"] == "completed"
    assert cluster.await_node(NODE)["status"] == "online"
    cluster.api("POST", f"/api/kill/{bomb}")
    assert cluster.finished(bomb)["status"] == "killed"


def test_a_fork_bomb_in_a_vps_leaves_the_vps(cluster: Cluster) -> None:
    with vps_on(cluster, NODE) as task_id:
        script = f"({BOMB}) 2>/dev/null; killall sleep; echo over"
        assert inside(task_id, script) == "over\n"
        assert inside(task_id, "echo back") == "back\n"
        assert cluster.status(task_id)["status"] == "running"


def test_who_asks_for_no_memory_is_ended_before_the_node_is(cluster: Cluster) -> None:
    eater = cluster.submit("sh", "-c", EATER)
    assert cluster.finished(eater)["status"] == "killed_oom"
    assert cluster.output(eater) == b""
    sized = cluster.submit("sh", "-c", EATER, required_memory_bytes=256 << 20)
    assert cluster.finished(sized)["status"] == "completed"
    assert cluster.output(sized) == b"enough\n"


def test_the_ledger_holds_no_memory_for_who_asks_for_none(cluster: Cluster) -> None:
    task_id = cluster.submit("sleep", "300")
    cluster.await_state(task_id, "running")
    (node,) = cluster.listed_nodes()
    assert (node["cores_used"], node["memory_used_by_tasks_bytes"]) == (1, 0)
    cluster.api("POST", f"/api/kill/{task_id}")
    cluster.finished(task_id)


def test_the_kernel_takes_a_workload_before_its_network_and_both_before_a_daemon(cluster: Cluster) -> None:
    task_id = cluster.submit("sleep", "300")
    cluster.await_state(task_id, "running")
    with vps_on(cluster, NODE) as vps:
        for name in (f"kohakuriver-task-{task_id}", container_name(vps)):
            sandbox = _inspected(name, "{{.HostConfig.NetworkMode}}").removeprefix("container:")
            workload = _score(int(_inspected(name, "{{.State.Pid}}")))
            network = _score(int(_inspected(sandbox, "{{.State.Pid}}")))
            daemons = [_score(pid) for pid in _daemons(cluster)]
            assert workload == 500
            assert network < workload
            assert max(daemons) <= network
            assert daemons == [_lowest_for_daemons()] * len(daemons)
    cluster.api("POST", f"/api/kill/{task_id}")
    cluster.finished(task_id)


def _score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def _daemons(cluster: Cluster) -> list[int]:
    """Host, runner and pipe keeper."""
    started = [cluster.host, cluster.runners[NODE]]
    pids = [daemon.process.pid for daemon in started if daemon is not None and daemon.process is not None]
    home = str(cluster.root / f"{NODE}-home").encode()
    keepers = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if b"pipe_keeper_process" in (words := path.read_bytes()) and home in words
    ]
    assert len(keepers) == 1
    return [*pids, *keepers]


def _lowest_for_daemons() -> int:
    """What a process of ours may have here: lowering takes a right that root in a container may lack."""
    script = f"echo {DAEMON_SCORE_ADJ} >/proc/self/oom_score_adj"
    may_lower = subprocess.run(["sh", "-c", script], capture_output=True, check=False).returncode == 0
    return DAEMON_SCORE_ADJ if may_lower else _score(os.getpid())
