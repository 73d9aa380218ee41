"""Images of a registry on a real cluster: what a user sees while one comes, and when it cannot come."""

import json
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.clients.pty_session import pty_session
from support.cluster.cluster import BIN, Cluster, wait_for, write_busybox_tarball
from support.engines.registry import LabRegistry, lab_registry
from support.engines.static_images import tree

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
            cluster.add_runner("kr-pulls", DOCKER_IMAGE_SYNC_TIMEOUT=8)
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
    # Also those whose tag has moved on; each image of the lab has only one name.
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


def _with_text(lab: Lab, text: bytes) -> str:
    """Point the tag at an image that holds this; returns the digest."""
    script = b"#!/bin/busybox sh\nexec /bin/busybox echo " + text + b"\n"
    program = Path("/bin/busybox").read_bytes()
    return lab.registry.put(lab.name, "1", tree({"bin/busybox": program, "bin/tell": script}))


def _told(lab: Lab, **fields: Any) -> tuple[str, str | None]:
    """What an image's program says, and the digest in the task's record."""
    task_id = lab.cluster.submit("tell", registry_image=lab.image, **fields)
    record = lab.cluster.finished(task_id)
    assert record["status"] == "completed", record["error_message"]
    return lab.cluster.output(task_id).decode().strip(), record["image_digest"]


def test_a_moved_tag_is_pulled_again_if_asked_for_and_the_record_says_what_ran(lab: Lab) -> None:
    first = _with_text(lab, b"one")
    assert _told(lab) == ("one", first)
    second = _with_text(lab, b"two")
    assert first != second
    asked = len(lab.registry.asked)
    assert _told(lab) == _told(lab, pull="missing") == _told(lab, pull="never") == ("one", first)
    assert len(lab.registry.asked) == asked
    assert _told(lab, pull="always") == ("two", second)
    assert _told(lab) == ("two", second)


def test_what_is_never_to_be_pulled_and_is_not_there_fails_unasked(lab: Lab) -> None:
    asked = len(lab.registry.asked)
    done = lab.cluster.cli("run", "--image", lab.image, "--pull", "never", "--", "true")
    assert done.returncode == 1
    assert b"--pull never" in done.stderr
    assert len(lab.registry.asked) == asked


def test_the_command_line_asks_for_a_pull_and_shows_the_digest(lab: Lab) -> None:
    _with_text(lab, b"one")
    _told(lab)
    second = _with_text(lab, b"two")
    done = lab.cluster.cli("run", "--image", lab.image, "--pull", "always", "--", "tell")
    assert (done.returncode, done.stdout) == (0, b"two\n")
    (newest, *_) = lab.cluster.api("GET", "/api/tasks", params={"limit": 1})
    shown = lab.cluster.cli("task", "status", newest["task_id"]).stdout.decode()
    assert second in shown
    refused = lab.cluster.cli("run", "--pull", "always", "--", "true")
    assert refused.returncode == 2
    assert b"--image" in refused.stderr


def test_an_image_that_nothing_asked_for_in_a_month_goes_and_comes_again(lab: Lab) -> None:
    cluster, node = lab.cluster, lab.cluster.runners["kr-pulls"]
    digest = _with_text(lab, b"one")
    _told(lab)

    def prune(*options: str) -> int:
        done = cluster.cli("prune", "-o", "json", *options)
        assert done.returncode == 0, done.stderr
        items = json.loads(done.stdout)["items"]
        (count,) = [
            item["count"] for item in items if (item["kind"], item["place"]) == ("images", "kr-pulls")
        ]
        return int(count)

    assert prune() == 0
    node.end()
    (record,) = node.home.rglob("used_images.json")
    uses = json.loads(record.read_text())
    assert lab.image in uses
    record.write_text(json.dumps(uses | {lab.image: uses[lab.image] - 31 * 86_400}))
    node.start()
    # One that ran shows that the runner has its engine.
    assert cluster.finished(cluster.submit("true"))["status"] == "completed"
    assert prune("--dry-run") == 1
    assert _image_id(lab.image) is not None
    assert prune() == 1
    assert _image_id(lab.image) is None
    asked = len(lab.registry.asked)
    assert _told(lab) == ("one", digest)
    assert len(lab.registry.asked) > asked


def _image_id(reference: str) -> str | None:
    argv = ["docker", "image", "inspect", "--format", "{{.Id}}", reference]
    found = subprocess.run(argv, capture_output=True, check=False)
    return found.stdout.decode().strip() if found.returncode == 0 else None


def test_docker_delete_reaches_the_nodes(lab: Lab) -> None:
    cluster, image = lab.cluster, f"kohakuriver/{lab.name}:base"
    write_busybox_tarball(cluster.containers, lab.name)
    record = cluster.finished(cluster.submit("true", container_name=lab.name))
    assert (record["status"], record["image_digest"]) == ("completed", _image_id(image))
    done = cluster.cli("docker", "delete", lab.name)
    assert b"removed from 1 of 1 nodes" in done.stdout, done.stderr
    assert _image_id(image) is None
    record = cluster.finished(cluster.submit("true", container_name=lab.name))
    assert f"no environment '{lab.name}'" in record["error_message"]
