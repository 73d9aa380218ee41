"""Runners that cannot run tasks: they say at their start, or on their node, what is missing."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import BIN, Cluster, Daemon, wait_for

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(300),
]


_AS_NOBODY = (
    *("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"),
    # The program itself may lie where nobody else may go.
    *("--inh-caps", "-all,+dac_read_search", "--ambient-caps", "-all,+dac_read_search"),
)
_READ_ONLY = "mount --bind {shared} {shared} && mount -o remount,bind,ro {shared}"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that other users of the machine can reach, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_runner_that_is_not_root_says_what_it_lacks_and_does_not_start(
    cluster: Cluster, open_folder: Path
) -> None:
    home, config = open_folder / "home", open_folder / "runner_config.py"
    home.mkdir()
    settings = {"JOIN_TOKEN": cluster.join_token(), "LOCAL_TEMP_DIR": str(home / "temp")}
    shutil.copy(cluster.runner_config("kr-user", **settings), config)
    config.chmod(0o600)
    for path in (home, config):
        shutil.chown(path, 65534, 65534)
    started = subprocess.run(
        [*_AS_NOBODY, str(BIN / "kohakuriver.runner"), "--config", str(config)],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert started.returncode == 1, started.stderr
    assert b"it is not root and lacks CAP_CHOWN" in started.stderr
    assert b"Start it as root" in started.stderr
    assert "kr-user" not in {node["hostname"] for node in cluster.nodes()}


def start_seeing(cluster: Cluster, name: str, script: str, **settings: object) -> Daemon:
    """A runner that sees its shared storage as the script makes it, in a mount namespace of its own."""
    config = cluster.runner_config(name, JOIN_TOKEN=cluster.join_token(), **settings)
    run = f'hostname {name} && {script} && exec "$0" "$@"'
    argv = ["unshare", "--uts", "--mount", "sh", "-c", run, str(BIN / "kohakuriver.runner")]
    daemon = Daemon(name, cluster.root / f"{name}-home", [*argv, "--config", str(config)])
    cluster.runners[name] = daemon
    daemon.start()
    cluster.await_node(name)
    return daemon


def faults_of(cluster: Cluster, name: str) -> str:
    return "; ".join(next(node["faults"] for node in cluster.nodes() if node["hostname"] == name))


@pytest.mark.parametrize(
    ("name", "script", "told"),
    [
        (
            "kr-readonly",
            _READ_ONLY,
            "takes no files",
        ),
        ("kr-elsewhere", "mount --bind {shared} {other}", "set both alike"),
    ],
    ids=["read-only", "elsewhere"],
)
def test_shared_storage_that_tasks_cannot_use_closes_its_node(
    cluster: Cluster, tmp_path: Path, name: str, script: str, told: str
) -> None:
    settings = {"SHARED_DIR": str(tmp_path)} if "{other}" in script else {}
    made = script.format(shared=cluster.shared, other=tmp_path)
    runner = start_seeing(cluster, name, made, **settings)
    try:
        wait_for(lambda: told in faults_of(cluster, name), f"the fault of {name}", 60)
        assert "SHARED_DIR" in faults_of(cluster, name)
        task_id = cluster.submit("true", targets=[name])
        # What else is not ready at a start comes first in the reason, and goes.
        wait_for(lambda: told in str(cluster.status(task_id)["pending_reasons"]), "its reason", 60)
        assert cluster.status(task_id)["status"] == "pending"
        cluster.api("POST", f"/api/kill/{task_id}")
    finally:
        runner.end()
        cluster.api("DELETE", f"/api/nodes/{name}", params={"force": "true"})
