"""One cluster for the whole lane: a host and two nodes, `n1` (two cores as it says itself) and `n2`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import Cluster
from support.debian_tree import SSH_IMAGE

BARE_IMAGE = "river-test/static:1"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start_host()
        cluster.add_runner("kr-n1", LOCAL_IMAGES=[BARE_IMAGE, SSH_IMAGE])
        cluster.add_runner("kr-n2", LOCAL_IMAGES=[BARE_IMAGE])
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def lone_host(tmp_path: Path) -> Iterator[Cluster]:
    """A host of a test's own, without nodes."""
    cluster = Cluster(tmp_path)
    try:
        cluster.start_host()
        yield cluster
    finally:
        cluster.stop()
