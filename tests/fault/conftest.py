"""The lab that the tests of this folder share: made once in a session, mended after each test."""

from collections.abc import Iterator

import pytest

from fault.breaking import heal
from support.lab.lab import Lab, running_lab


@pytest.fixture(scope="session")
def whole_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture
def lab(whole_lab: Lab) -> Iterator[Lab]:
    """A host and the nodes n1, n2 and n3, online and with nothing broken."""
    yield whole_lab
    assert heal(whole_lab, whole_lab.nodes) == []
    for node in whole_lab.nodes:
        whole_lab.await_node(node)
