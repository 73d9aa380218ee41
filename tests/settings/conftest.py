"""One cluster for the settings that need daemons: `kr-plain` as it comes, `kr-set` with all changed."""

import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.cluster.cluster import Cluster, write_busybox_tarball


@dataclass(frozen=True)
class Contrast:
    """Two nodes of one cluster that differ only in their settings."""

    cluster: Cluster
    root: Path

    def run(self, node: str, script: str, **fields: object) -> tuple[dict[str, object], str]:
        """Run a shell script on the node and return the record and standard output."""
        record = self.cluster.finished(self.cluster.submit("sh", "-c", script, targets=[node], **fields))
        return record, self.cluster.output(str(record["task_id"])).decode()


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
