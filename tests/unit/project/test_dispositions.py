"""Tests pass as well when they are started in the background of a script, or by `nohup`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

_NUMBERS = {"HUP": 1, "INT": 2, "QUIT": 3}


def _ignored(status: str) -> set[str]:
    mask = int(status.split("SigIgn:")[1].split(maxsplit=1)[0], 16)
    return {name for name, number in _NUMBERS.items() if mask & 1 << number - 1}


def test_a_process_that_a_test_starts_hears_signals() -> None:
    status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    assert _ignored(status) == set()
    assert re.search(r"^Umask:\s+0022$", status, re.MULTILINE)


@pytest.mark.parametrize("started", ["trap '' INT QUIT HUP", "umask 077; exec <&-"])
def test_so_does_one_of_a_run_in_the_background(started: str) -> None:
    test = f"{Path(__file__)}::{test_a_process_that_a_test_starts_hears_signals.__name__}"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    done = subprocess.run(
        ["sh", "-c", f'{started}; exec "$@"', "sh", *words],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
