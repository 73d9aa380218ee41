"""Credentials of the cluster for a registry: who may give them, who gets them, and where they stand."""

import base64
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import Cluster
from support.lab_registry import LabRegistry, lab_registry

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(300)]

PASSWORD = "river-registry-password-4711"


@pytest.fixture(scope="module")
def registry() -> Iterator[LabRegistry]:
    with lab_registry() as lab:
        lab.credentials, lab.bearer = ("ada", PASSWORD), True
        yield lab


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("registry"))
    try:
        cluster.start_host(LOG_LEVEL="FULL")
        cluster.add_runner("kr-private", LOG_LEVEL="FULL", DOCKER_IMAGE_SYNC_TIMEOUT=20)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def image(registry: LabRegistry) -> Iterator[str]:
    name = f"t{uuid.uuid4().hex[:10]}"
    registry.put(name, "1")
    yield f"{registry.address}/{name}:1"
    subprocess.run(["docker", "rmi", "-f", f"{registry.address}/{name}:1"], capture_output=True, check=False)


def _log_in(cluster: Cluster, registry: str, password: str = PASSWORD) -> None:
    argv = ("docker", "login", registry, "-u", "ada", "--password-stdin")
    done = cluster.cli(*argv, input=password.encode() + b"\n")
    assert done.returncode == 0, done.stderr
    assert password.encode() not in done.stdout + done.stderr


def _written(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path, path.read_bytes()


def test_the_cluster_pulls_with_a_credential_that_stands_nowhere_in_clear(
    cluster: Cluster, registry: LabRegistry, image: str
) -> None:
    refused = cluster.finished(cluster.submit("echo", registry_image=image))
    assert "kohakuriver docker login" in refused["error_message"]
    _log_in(cluster, registry.address)
    record = cluster.finished(cluster.submit("echo", registry_image=image))
    assert record["status"] == "completed", record["error_message"]
    listed = cluster.api("GET", "/api/docker/registries")
    assert [(row["registry"], row["username"]) for row in listed] == [(registry.address, "ada")]
    shown = cluster.cli("docker", "registries").stdout.decode()
    assert registry.address in shown
    forms = (PASSWORD, base64.b64encode(f"ada:{PASSWORD}".encode()).decode())
    assert all(form not in str(listed) + shown for form in forms)
    found = [path for path, text in _written(cluster.root) for form in forms if form.encode() in text]
    assert found == [], "host, runner, their state and their logs"
    gone = cluster.cli("docker", "logout", registry.address)
    assert gone.returncode == 0, gone.stderr
    assert cluster.api("GET", "/api/docker/registries") == []


def test_a_credential_outlives_a_restart_of_the_host_and_serves_environments_too(
    cluster: Cluster, registry: LabRegistry, image: str
) -> None:
    _log_in(cluster, registry.address)
    assert cluster.host is not None
    cluster.host.end()
    cluster.start_host()
    cluster.await_node("kr-private")
    record = cluster.finished(cluster.submit("echo", registry_image=image))
    assert record["status"] == "completed", record["error_message"]
    subprocess.run(["docker", "rmi", "-f", image], capture_output=True, check=True)
    name = f"e{uuid.uuid4().hex[:10]}"
    try:
        made = cluster.cli("docker", "container", "create", image, name)
        assert made.returncode == 0, made.stderr
    finally:
        subprocess.run(["docker", "rm", "-fv", f"kohakuriver-env-{name}"], capture_output=True, check=False)
        cluster.cli("docker", "logout", registry.address)


def test_a_wrong_password_is_named_as_the_reason_and_not_told(
    cluster: Cluster, registry: LabRegistry, image: str
) -> None:
    _log_in(cluster, registry.address, "wrong-password-4711")
    record = cluster.finished(cluster.submit("echo", registry_image=image))
    assert record["status"] == "failed"
    assert "did not take the cluster's credentials" in record["error_message"]
    assert "4711" not in record["error_message"]
    cluster.cli("docker", "logout", registry.address)
