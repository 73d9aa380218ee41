"""One test per setting of what tasks may take of a node; `kr-narrow` beside `kr-plain` with the defaults."""

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
    runner = contrast.cluster.start_runner("kr-narrow", LOCAL_IMAGES=[f"docker.io/{_LOCAL_IMAGE}"])
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
