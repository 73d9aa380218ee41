"""The private daemon of the tests: separate from the machine's own, GPU requests by the stand-in hook."""

import os
import subprocess
from pathlib import Path

import pytest

from kohakuriver.dockerapi.client import DockerApi
from support.engines.private_docker import NVIDIA_HOOK_DIR, private_dockerd
from support.engines.static_images import busybox_tree, import_bytes

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]


@pytest.mark.skipif(os.geteuid() != 0, reason="a second Docker daemon needs root")
async def test_a_private_daemon_takes_gpu_requests_and_leaves_nothing_behind(tmp_path: Path) -> None:
    cgroups, mounts = _test_cgroups(), Path("/proc/mounts").read_text().count(str(tmp_path))
    with private_dockerd(tmp_path, extra_path=[NVIDIA_HOOK_DIR]) as daemon:
        api = await DockerApi.connect(daemon.url)
        assert await api.json("GET", "images/json") == []
        await import_bytes(api, busybox_tree(), "gpu-probe:1")
        await api.close()
        result = subprocess.run(
            ["docker", "-H", daemon.url, "run", "--rm", "--gpus", "device=GPU-abc", "gpu-probe:1", "env"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "NVIDIA_VISIBLE_DEVICES=GPU-abc" in result.stdout, result.stderr
        subprocess.run(["docker", "-H", daemon.url, "run", "-d", "gpu-probe:1", "sleep", "1000"], check=True)
    assert list(tmp_path.iterdir()) == []
    assert _test_cgroups() == cgroups
    assert Path("/proc/mounts").read_text().count(str(tmp_path)) == mounts
    with pytest.raises(ProcessLookupError):
        os.kill(daemon.pid, 0)


def _test_cgroups() -> list[Path]:
    return sorted(Path("/sys/fs/cgroup").glob("*/kohakuriver-test-*"))
