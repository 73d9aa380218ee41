"""Images of a registry on a real cluster: what a user sees while one comes, and when it cannot come."""

import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support.cluster import BIN, Cluster, wait_for
from support.lab_registry import LabRegistry, lab_registry
from support.pty_session import pty_session

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("pulled images"),
    pytest.mark.timeout(300),
]


@dataclass
class Lab:
    """A cluster of one node, and a registry with an image `image` that no engine has."""

    cluster: Cluster
    registry: LabRegistry
    name: str = ""

    @property
    def image(self) -> str:
        return f"{self.registry.address}/{self.name}:1"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    cluster = Cluster(tmp_path_factory.mktemp("pulls"))
    try:
        with lab_registry() as registry:
            cluster.start_host()
            cluster.start_runner("kr-pulls", DOCKER_IMAGE_SYNC_TIMEOUT=8)
            yield Lab(cluster, registry)
    finally:
        cluster.stop()


@pytest.fixture
def lab(place: Lab) -> Iterator[Lab]:
    place.name = f"t{uuid.uuid4().hex[:10]}"
    place.registry.put(place.name, "1")
    yield place
    place.registry.gate.set()
    place.registry.busy.clear()
    place.registry.always_busy = 0
    place.registry.credentials = None
    listed = subprocess.run(
        ["docker", "images", "-q", "--no-trunc", f"{place.registry.address}/{place.name}"],
        capture_output=True,
        check=True,
    )
    for image_id in set(listed.stdout.decode().split()):
        subprocess.run(["docker", "rmi", "-f", image_id], capture_output=True, check=False)


def test_how_far_a_pull_is_stands_in_the_api_task_status_and_run(lab: Lab) -> None:
    cluster = lab.cluster
    lab.registry.gate.clear()
    environment = {"HOME": str(cluster.host_home), "TERM": "xterm", **cluster.cli_environment()}
    argv = [str(BIN / "kohakuriver"), "run", "--image", lab.image, "--", "echo", "here"]
    with pty_session(argv, environment) as terminal:
        terminal.wait_for(f"pulling {lab.image}", seconds=60)
        (listed,) = cluster.api("GET", "/api/tasks", params={"status": "assigning"})
        task_id = listed["task_id"]
        assert cluster.status(task_id)["progress"].startswith(f"pulling {lab.image}")
        shown = cluster.cli("task", "status", task_id).stdout.decode()
        assert f"pulling {lab.image}" in shown
        lab.registry.gate.set()
        terminal.wait_for("here\r\n", seconds=60)
        assert terminal.wait(60) == 0
    assert cluster.status(task_id)["progress"] is None


def test_a_task_whose_registry_stays_busy_is_lost_to_the_system_and_runs_again(lab: Lab) -> None:
    cluster = lab.cluster
    lab.registry.always_busy = 503
    task_id = cluster.submit("echo", "here", registry_image=lab.image, retries=3)
    wait_for(lambda: "503" in (cluster.status(task_id)["progress"] or ""), "the reason why it is not here")
    wait_for(lambda: cluster.status(task_id)["retries_used"] >= 1, "the first attempt to be lost")
    lab.registry.always_busy = 0
    record = cluster.finished(task_id)
    assert (record["status"], cluster.output(task_id)) == ("completed", b"here\n")


def test_a_task_without_retries_says_what_the_registry_said(lab: Lab) -> None:
    lab.registry.always_busy = 429
    record = lab.cluster.finished(lab.cluster.submit("true", registry_image=lab.image))
    assert record["status"] == "failed"
    assert "toomanyrequests" in record["error_message"]
    assert "tried" in record["error_message"]
