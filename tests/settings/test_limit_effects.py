"""One test per setting of what tasks may take of a node; `kr-narrow` beside `kr-plain` with the defaults."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from settings.conftest import Contrast
from support.static_images import busybox_tree

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("settings"),
    pytest.mark.timeout(300),
]

_LOCAL_IMAGE = "river-test/by-hand:1"


@pytest.fixture(scope="module", autouse=True)
def narrow(contrast: Contrast) -> Iterator[None]:
    node_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    runner = contrast.cluster.add_runner(
        "kr-narrow",
        LOCAL_IMAGES=[f"docker.io/{_LOCAL_IMAGE}"],
        TASK_PIDS_LIMIT=40,
        DEFAULT_MEMORY_LIMIT=(64 << 20) / node_bytes,
    )
    yield
    runner.end()


def test_local_images(contrast: Contrast) -> None:
    subprocess.run(
        ["docker", "import", "-", _LOCAL_IMAGE], input=busybox_tree(), capture_output=True, check=True
    )
    try:
        for node, status in (("kr-plain", "failed"), ("kr-narrow", "completed")):
            record, _ = contrast.run(node, "echo here", registry_image=_LOCAL_IMAGE)
            assert record["status"] == status, record["error_message"]
        other, _ = contrast.run("kr-narrow", "echo here", registry_image="river-test/other:1")
        assert other["status"] == "failed"
    finally:
        subprocess.run(["docker", "rmi", _LOCAL_IMAGE], capture_output=True, check=True)


def test_task_pids_limit(contrast: Contrast) -> None:
    many = "i=0; while [ $i -lt 60 ]; do sleep 60 & i=$((i+1)); done; echo all"
    for node, output in (("kr-plain", "all\n"), ("kr-narrow", "")):
        record, said = contrast.run(node, many)
        assert (record["status"], said) == ("completed" if output else "failed", output)


def test_default_memory_limit(contrast: Contrast) -> None:
    large = "head -c 150m /dev/zero | tail -c 150m >/dev/null"
    for node, status in (("kr-plain", "completed"), ("kr-narrow", "killed_oom")):
        assert contrast.run(node, large)[0]["status"] == status


def test_limits_of_0_are_none(contrast: Contrast) -> None:
    contrast.cluster.add_runner("kr-boundless", TASK_PIDS_LIMIT=0, DEFAULT_MEMORY_LIMIT=0)
    limits = "{{.HostConfig.PidsLimit}} {{.HostConfig.Memory}}"
    for node, has_limits in (("kr-plain", True), ("kr-boundless", False)):
        task_id = contrast.cluster.submit("sleep", "300", targets=[node])
        contrast.cluster.await_state(task_id, "running")
        argv = ["docker", "inspect", "--format", limits, f"kohakuriver-task-{task_id}"]
        shown = subprocess.run(argv, capture_output=True, check=True).stdout.decode().split()
        contrast.cluster.api("POST", f"/api/kill/{task_id}")
        contrast.cluster.finished(task_id)
        assert (shown[0] == "4096", int(shown[1]) > 0) == (has_limits, has_limits), shown
    contrast.cluster.runners["kr-boundless"].end()
