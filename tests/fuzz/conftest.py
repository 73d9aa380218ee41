"""What the tests of this lane share."""

from collections.abc import Iterator

import pytest
import structlog.testing


@pytest.fixture(autouse=True)
def _quiet_logs() -> Iterator[None]:
    """Traces of what fails on purpose are long, and slow to be shown."""
    with structlog.testing.capture_logs():
        yield
