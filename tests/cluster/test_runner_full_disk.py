"""The disks of a real runner are filled while a task runs and another one waits for room."""

from pathlib import Path

import pytest

from support.cluster import Cluster, wait_for
from support.small_disk import SmallDisk, small_disk

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(300),
]

COUNT = "i=0; while [ ! -e /shared/go-{0} ]; do i=$((i+1)); echo $i; sleep 0.05; done; echo last"


def _faults(cluster: Cluster, name: str) -> list[str]:
    return next(list(node["faults"]) for node in cluster.listed_nodes() if node["hostname"] == name)


def _fill(cluster: Cluster, name: str, disk: SmallDisk) -> str:
    """Fill a disk under a running task, see that the node says so and takes nothing more; give both tasks."""
    running = cluster.submit("sh", "-c", COUNT.format(name), targets=[name])
    cluster.await_state(running, "running")
    disk.fill()
    wait_for(lambda: any("is full" in fault for fault in _faults(cluster, name)), "the node to say it")
    shown = cluster.cli("node", "list", "--json").stdout + cluster.cli("node", "status", name).stdout
    assert b"is full" in shown, shown
    waiting = cluster.submit("echo", "later", targets=[name])

    def explained() -> bool:
        record = cluster.status(waiting)
        assert record["status"] == "pending"
        return "has a fault" in str(record["pending_reasons"])

    wait_for(explained, "the reason why it waits", 30)
    (cluster.shared / "shared_data" / f"go-{name}").touch()
    disk.empty()
    assert cluster.finished(waiting)["status"] == "completed"
    assert cluster.output(waiting) == b"later\n"
    record = cluster.finished(running)
    assert record["status"] == "completed", record
    assert _faults(cluster, name) == []
    return running


def _is_whole(output: bytes) -> bool:
    *numbers, last = output.decode().split()
    return last == "last" and numbers == [str(number) for number in range(1, len(numbers) + 1)]


def test_a_full_state_folder_keeps_work_away_and_loses_nothing(cluster: Cluster) -> None:
    with small_disk(cluster.root / "kr-full-state-home", 16) as disk:
        cluster.add_runner("kr-full-state")
        try:
            running = _fill(cluster, "kr-full-state", disk)
            assert _is_whole(cluster.output(running))
        finally:
            cluster.runners["kr-full-state"].end()


def test_a_full_local_temp_dir_keeps_work_away(cluster: Cluster, tmp_path: Path) -> None:
    with small_disk(tmp_path / "temp", 16) as disk:
        cluster.add_runner("kr-full-temp", LOCAL_TEMP_DIR=str(disk.path))
        try:
            running = _fill(cluster, "kr-full-temp", disk)
            assert _is_whole(cluster.output(running))
        finally:
            cluster.runners["kr-full-temp"].end()
