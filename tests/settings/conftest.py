"""One cluster for the settings that need daemons: `kr-plain` as it comes, `kr-set` with all changed."""

import os
import pwd
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.cluster.cluster import Cluster, in_uts_namespace, write_busybox_tarball


@dataclass(frozen=True)
class Contrast:
    """Two nodes of one cluster that differ only in their settings."""

    cluster: Cluster
    root: Path

    def run(self, node: str, script: str, **fields: object) -> tuple[dict[str, object], str]:
        """Run a shell script on the node and return the record and standard output."""
        record = self.cluster.finished(self.cluster.submit("sh", "-c", script, targets=[node], **fields))
        return record, self.cluster.output(str(record["task_id"])).decode()

    def node(self, name: str) -> dict[str, Any]:
        return next(node for node in self.cluster.listed_nodes() if node["hostname"] == name)

    def config(self, name: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        exec((self.root / f"{name}.py").read_text(), {}, values)
        return values

    def asked_by_task(self, node: str, path: str, *headers: str) -> str:
        """What a task is answered that asks the runner of its node."""
        config = self.config(node)
        lines = "".join(f"{line}\\r\\n" for line in (f"GET {path} HTTP/1.1", "Host: runner", *headers))
        place = f"{config['DOCKER_NETWORK_GATEWAY']} {config['RUNNER_PORT']}"
        asking = f"printf '{lines}\\r\\n'; cat >&3"
        return self.run(node, f'exec 3>&1; timeout 20 nc {place} -e /bin/sh -c "{asking}"')[1]


def sandboxes_of(node: str) -> list[str]:
    filters = (f"label=kohakuriver.node={node}", "name=kohakuriver-sandbox-")
    argv = ["docker", "ps", "-q", *(word for each in filters for word in ("--filter", each))]
    return subprocess.run(argv, capture_output=True, check=True).stdout.decode().split()


def run_once(path: Path, name: str, seconds: float = 20) -> subprocess.CompletedProcess[bytes]:
    """Start a runner that is to end by itself."""
    environment = {**os.environ, "HOME": str(path.parent / f"{name}-home")}
    return subprocess.run(
        in_uts_namespace(name, path), env=environment, capture_output=True, timeout=seconds, check=False
    )


@pytest.fixture(scope="session")
def contrast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contrast]:
    root = tmp_path_factory.mktemp("settings")
    cluster = Cluster(root)
    mounted = root / "mounted"
    mounted.mkdir()
    (mounted / "fact").write_text("from the node\n")
    for environment in ("kohakuriver-base", "kr-elsewhere"):
        write_busybox_tarball(root / "tarballs", environment)
    try:
        cluster.start_host(DEFAULT_WORKING_DIR="/shared")
        cluster.add_runner("kr-plain")
        cluster.add_runner(
            "kr-set",
            HEARTBEAT_INTERVAL_SECONDS=2,
            RESOURCE_CHECK_INTERVAL_SECONDS=2,
            RUNNER_USER=pwd.getpwuid(65534).pw_name,
            DEFAULT_WORKING_DIR="/local_temp",
            TASKS_PRIVILEGED=True,
            ADDITIONAL_MOUNTS=[f"{mounted}:/mounted:ro"],
            CONTAINER_TAR_DIR=str(root / "tarballs"),
            LOG_LEVEL="debug",
            RUNNER_LOG_FILE=str(root / "kr-set-file.log"),
            SANDBOX_POOL_SIZE=0,
            WORKLOAD_EGRESS_DENY=[],
            TUNNEL_ENABLED=False,
        )
        yield Contrast(cluster, root)
    finally:
        cluster.stop()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory of the test's own, with the folder for configuration files."""
    folder = tmp_path / "home"
    (folder / ".kohakuriver").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    return folder
