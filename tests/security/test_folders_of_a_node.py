"""What a workload finds and leaves in the node's folders, against a real runner with RUNNER_USER set."""

import os
import pwd
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.runner.local_temp import data_folder, homes_folder
from support.cluster import Cluster, running_cluster, wait_for
from support.tiny_program import is_root_program

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(300)]

_NOBODY = 65534


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("folders")) as ready:
        ready.add_runner("kr-folders", RUNNER_USER=pwd.getpwuid(_NOBODY).pw_name)
        ready.add_runner("kr-of-root")
        yield ready


def _run(cluster: Cluster, node: str, script: str) -> tuple[str, str]:
    record = cluster.finished(cluster.submit("sh", "-c", script, targets=[node]))
    return str(record["status"]), cluster.output(str(record["task_id"])).decode()


@pytest.mark.parametrize("place", ["/local_temp", "/shared"])
def test_what_one_workload_leaves_gives_no_other_the_rights_of_root(cluster: Cluster, place: str) -> None:
    folder = data_folder(cluster.root / "kr-folders-temp") if place == "/local_temp" else None
    folder = folder or cluster.shared / "shared_data"
    (folder / "program").write_bytes(is_root_program())
    (folder / "program").chmod(0o4755)
    os.mknod(folder / "device", stat.S_IFCHR, os.makedev(1, 3))
    (folder / "device").chmod(0o666)
    script = (
        f"{place}/program && echo root; echo x > {place}/device && echo opened; "
        f"grep -c ' {place} .*nosuid,nodev' /proc/self/mountinfo; grep NoNewPrivs /proc/self/status"
    )
    status, said = _run(cluster, "kr-folders", script)
    assert said.split() == ["1", "NoNewPrivs:", "1"], status


def test_runner_user_has_a_name_a_home_and_places_to_write(cluster: Cluster) -> None:
    name = pwd.getpwuid(_NOBODY).pw_name
    script = (
        "whoami; echo $USER $LOGNAME $HOME; pwd; for place in . ~ /local_temp; do "
        "echo x > $place/of-the-user && rm $place/of-the-user || echo closed; done"
    )
    status, said = _run(cluster, "kr-folders", script)
    assert said.splitlines() == [name, f"{name} {name} /home/{name}", "/shared"], status
    homes = homes_folder(cluster.root / "kr-folders-temp")
    wait_for(lambda: not list(homes.iterdir()), "the home folder to go with its task")


def test_what_the_submitter_says_of_home_counts(cluster: Cluster) -> None:
    fields = {"targets": ["kr-folders"], "env_vars": {"HOME": "/local_temp"}}
    record = cluster.finished(cluster.submit("sh", "-c", "cd && pwd", **fields))
    assert cluster.output(str(record["task_id"])) == b"/local_temp\n"


@pytest.mark.parametrize("node", ["kr-folders", "kr-of-root"])
def test_a_local_account_reaches_nothing_below_local_temp_dir(cluster: Cluster, node: str) -> None:
    _run(cluster, node, "echo mine > /local_temp/file && chmod 777 /local_temp/file")
    folder = cluster.root / f"{node}-temp"
    left = data_folder(folder) / "file"
    assert left.read_text() == "mine\n"
    # The test's own folders are closed to others; who stands in this one already needs to pass none of them.
    script = f"cat {left.relative_to(folder)} || ls workloads || ls logs || echo closed"
    looked = subprocess.run(
        ["sh", "-c", script], cwd=folder, user=_NOBODY, group=_NOBODY, capture_output=True, check=False
    )
    assert looked.stdout == b"closed\n", looked


def test_workloads_do_not_see_where_output_lies(cluster: Cluster) -> None:
    """Not even as root, and with a link planted where it would lie they bend nothing."""
    victim = Path(cluster.root / "victim")
    victim.mkdir()
    script = f"ls -a /local_temp; ln -s {victim} /local_temp/logs; ls -a /shared | grep -c logs"
    _, said = _run(cluster, "kr-of-root", script)
    assert "logs" not in said
    assert said.split()[-1] == "0"
    for _ in range(2):
        assert _run(cluster, "kr-of-root", "echo fine")[1] == "fine\n"
    assert list(victim.iterdir()) == []


def test_mounts_of_a_killed_runner_are_taken_over_and_go_with_the_next_ones_end(cluster: Cluster) -> None:
    runner = cluster.add_runner("kr-killed")
    assert _run(cluster, "kr-killed", "true")[0] == "completed"
    assert _mounts("kr-killed") == ["local_temp", "shared"]
    runner.end(9)
    assert _mounts("kr-killed") == ["local_temp", "shared"]
    runner.start()
    cluster.await_node("kr-killed")
    assert _run(cluster, "kr-killed", "true")[0] == "completed"
    assert _mounts("kr-killed") == ["local_temp", "shared"]
    runner.end()
    assert _mounts("kr-killed") == []


def _mounts(node: str) -> list[str]:
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted(place.rpartition("/")[2] for place in places if f"/mounts/{node}-" in place)


def test_a_shared_storage_that_local_users_reach_is_told_and_keeps_no_work_away() -> None:
    """A cluster of its own, whose folders are open to the machine's users as those of other tests are not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        subprocess.run(["mount", "--bind", name, name], check=True)
        subprocess.run(["mount", "-o", "remount,bind,suid,dev", name], check=True)
        try:
            with running_cluster(Path(name)) as cluster:
                cluster.add_runner("kr-open")
                told = wait_for(lambda: _node(cluster, "kr-open")["notices"], "the notice")
                assert "mount it with nosuid,nodev" in told[0]
                assert _run(cluster, "kr-open", "echo works") == ("completed", "works\n")
                assert _node(cluster, "kr-open")["notices"] == told
                assert b"mount it with nosuid,nodev" in cluster.cli("node", "status", "kr-open").stdout
                subprocess.run(["mount", "-o", "remount,bind,nosuid,nodev", name], check=True)
                wait_for(lambda: not _node(cluster, "kr-open")["notices"], "the notice to go")
        finally:
            subprocess.run(["umount", "-l", name], check=True)


def _node(cluster: Cluster, name: str) -> dict[str, Any]:
    return next(node for node in cluster.listed_nodes() if node["hostname"] == name)
