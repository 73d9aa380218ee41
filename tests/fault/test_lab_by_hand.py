"""The lab as people use it: it comes up and stays, is used and broken from a shell, and goes."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.cluster.cluster import BIN, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.xdist_group("lab"), pytest.mark.timeout(300)]

_PROGRAM = Path(__file__).parents[2] / "tools" / "lab.py"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def by_hand() -> Iterator[Run]:
    """Runs `tools/lab.py` where no other lab is known; what stands at the end goes."""
    with tempfile.TemporaryDirectory(prefix="kr-hand-") as folder:

        def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [sys.executable, str(_PROGRAM), *arguments],
                env={**os.environ, "TMPDIR": folder},
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )

        try:
            yield run
        finally:
            assert run("down").returncode == 0
            assert os.listdir(folder) == []


def exports(shown: str) -> dict[str, str]:
    """The variables that the user is told to export."""
    (line,) = (line for line in shown.splitlines() if line.strip().startswith("export "))
    return dict(word.split("=", 1) for word in line.split()[1:])


def test_a_lab_stays_is_broken_and_mended_from_a_shell_and_goes(by_hand: Run) -> None:
    up = by_hand("up", "--nodes", "1")
    assert up.returncode == 0, up.stderr
    environment = {**os.environ, **exports(up.stdout)}

    def node_list() -> str:
        command = [str(BIN / "kohakuriver"), "node", "list"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert "online" in node_list()
    assert by_hand("up").returncode == 1, "a second one"
    assert by_hand("cut", "n1", "to_host").returncode == 0
    wait_for(lambda: "offline" in node_list(), "the node to be offline")
    assert by_hand("mend", "n1").returncode == 0
    wait_for(lambda: "online" in node_list(), "the node to be online again")
    assert "KeyError: 'n7'" in by_hand("kill-runner", "n7").stdout
    assert "started by hand" in by_hand("status").stdout
    assert "is gone" in by_hand("down").stdout
    assert by_hand("status").stdout == ""
    assert "no lab stands" in by_hand("mend", "n1").stdout
