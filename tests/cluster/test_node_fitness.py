"""Runners that cannot run tasks: they say at their start, or on their node, what is missing."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from support import nvml_stand_in
from support.cluster import BIN, Cluster, Daemon, wait_for

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(300),
]

CACHE = Path(__file__).parents[2] / ".cache"

_AS_NOBODY = (
    *("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"),
    # The program itself may lie where nobody else may go.
    *("--inh-caps", "-all,+dac_read_search", "--ambient-caps", "-all,+dac_read_search"),
)


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
    assert "kr-user" not in {node["hostname"] for node in cluster.listed_nodes()}


def start_seeing(cluster: Cluster, name: str, script: str, **settings: object) -> Daemon:
    """A runner that sees its machine as the script makes it, in a mount namespace of its own."""
    config = cluster.runner_config(name, JOIN_TOKEN=cluster.join_token(), **settings)
    run = f'hostname {name} && {script} && exec "$0" "$@"'
    argv = ["unshare", "--uts", "--mount", "sh", "-c", run, str(BIN / "kohakuriver.runner")]
    daemon = Daemon(name, cluster.root / f"{name}-home", [*argv, "--config", str(config)])
    cluster.runners[name] = daemon
    daemon.start()
    cluster.await_node(name)
    return daemon


@contextlib.contextmanager
def listening(cluster: Cluster) -> Iterator[list[str]]:
    """The lines of the event stream, from now on."""
    heard: list[str] = []

    def listen(answer: httpx2.Response) -> None:
        with contextlib.suppress(httpx2.HTTPError, httpx2.StreamError):
            for line in answer.iter_lines():
                heard.append(line)

    with cluster.client.stream("GET", "/api/events") as answer:
        thread = threading.Thread(target=listen, args=(answer,), daemon=True)
        thread.start()
        wait_for(lambda: heard, "the stream of events")
        yield heard


def closed_reason(cluster: Cluster, name: str) -> str:
    (found,) = [node["closed_reason"] for node in cluster.listed_nodes() if node["hostname"] == name]
    return str(found)


def assert_closed_everywhere(cluster: Cluster, name: str, told: str, heard: list[str]) -> None:
    """What else is not ready at a start comes first in a reason, and goes."""

    def shown(*words: str) -> str:
        return cluster.cli(*words).stdout.decode()

    wait_for(lambda: told in closed_reason(cluster, name), f"the reason at {name}", 60)
    task_id = cluster.submit("true", targets=[name])
    wait_for(lambda: told in str(cluster.status(task_id)["pending_reasons"]), "its reason", 60)
    assert cluster.status(task_id)["status"] == "pending"
    assert told in shown("task", "status", task_id)
    assert told in shown("node", "status", name)
    (line,) = [line for line in shown("node", "list").splitlines() if line.startswith(f"{name} ")]
    assert told in line
    (notice,) = cluster.api("GET", "/readyz")["notices"]
    assert re.search(r"[1-9]\d* fault", notice["message"])
    assert re.search(r'kohakuriver_nodes_closed{reason="fault"} [1-9]', cluster.client.get("/metrics").text)
    wait_for(lambda: any(name in line and told in line for line in heard), "the event", 30)
    cluster.api("POST", f"/api/kill/{task_id}")


_CAUSES = {
    "shared storage read-only": (
        "kr-readonly",
        "mount --bind {shared} {shared} && mount -o remount,bind,ro {shared}",
        "takes no files",
    ),
    "shared storage elsewhere": ("kr-elsewhere", "mount --bind {shared} {other}", "set both alike"),
    "output not to be read": ("kr-blind", "mount -t tmpfs none {engine}", "the engine's data is not at"),
    "no engine": ("kr-engineless", "export DOCKER_HOST=unix:///run/none.sock", "/run/none.sock"),
}


@pytest.mark.parametrize("cause", _CAUSES)
def test_what_keeps_tasks_from_running_closes_a_node_and_is_told_everywhere(
    cluster: Cluster, tmp_path: Path, cause: str
) -> None:
    name, script, told = _CAUSES[cause]
    engine = subprocess.run(
        ["docker", "info", "--format", "{{.DockerRootDir}}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    settings = {"SHARED_DIR": str(tmp_path)} if "{other}" in script else {}
    made = script.format(shared=cluster.shared, other=tmp_path, engine=engine)
    with listening(cluster) as heard:
        runner = start_seeing(cluster, name, made, **settings)
        try:
            assert_closed_everywhere(cluster, name, told, heard)
        finally:
            runner.end()
            cluster.api("DELETE", f"/api/nodes/{name}", params={"force": "true"})


def test_starts_that_fail_in_a_row_take_a_node_out_until_it_is_tried_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Its cards can be given to nobody, since its engine has no program for that."""
    cards, name = tmp_path / "cards.json", "kr-cardless"
    nvml_stand_in.write_gpus(cards, *(nvml_stand_in.gpu(number) for number in range(3)))
    cluster.add_runner(name, environment=nvml_stand_in.environment(CACHE, cards))
    try:
        tasks = [cluster.submit("true", targets=[f"{name}::{card}"], required_cores=0) for card in range(3)]
        told = "tasks in a row could not be run here: the engine of this node cannot give GPUs"
        wait_for(lambda: told in closed_reason(cluster, name), f"{name} to be taken out", 60)
        for task_id in tasks:
            cluster.client.post(f"/api/kill/{task_id}")
        # Nothing is wrong with what it offers beside its cards.
        assert cluster.finished(cluster.submit("true", targets=[name]))["status"] == "completed"
        assert closed_reason(cluster, name) == ""
    finally:
        cluster.runners[name].end()
        cluster.api("DELETE", f"/api/nodes/{name}", params={"force": "true"})
