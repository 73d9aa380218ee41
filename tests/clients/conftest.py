"""Fixtures of the client lane."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.clients.command_line import CommandLine
from support.clients.stub_host import StubHost, stub_host


@pytest.fixture
def host() -> Iterator[StubHost]:
    with stub_host() as running:
        yield running


@pytest.fixture
def command(host: StubHost, tmp_path: Path) -> CommandLine:
    """The command line, pointed at the stub host."""
    return CommandLine(tmp_path, host.url)
