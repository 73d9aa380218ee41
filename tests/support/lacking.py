"""What is done where a machine lacks what a test needs."""

import os
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip where a developer's machine lacks something; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, which CI must have")
    pytest.skip(what)
