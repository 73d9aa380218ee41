"""Tests that need an engine: skipped with the reason on a laptop, failed in CI."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[3]
_SUITE = """
import pytest

@pytest.mark.docker
def test_with_engine(): pass

def test_without_engine(): pass

@pytest.mark.root
def test_skipped_by_itself(): pytest.skip("not today")
"""


def _run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "tests").mkdir()
    (folder / "tools").mkdir()
    shutil.copy(_ROOT / "tests" / "conftest.py", folder / "tests")
    shutil.copy(_ROOT / "tools" / "engine_answers.py", folder / "tools")
    (folder / "tests" / "test_suite.py").write_text(_SUITE)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    docker: x\n    root: x\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "tests"],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "DOCKER_HOST": f"unix://{folder}/none.sock",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_on_a_laptop_the_reason_is_shown_and_nothing_fails(tmp_path: Path) -> None:
    result = _run(tmp_path)
    assert result.returncode == 0, result.stdout
    assert "1 passed, 2 skipped" in result.stdout
    assert "no Docker engine answers" in result.stdout


def test_in_ci_a_missing_engine_fails(tmp_path: Path) -> None:
    result = _run(tmp_path, CI="true")
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout
    assert "1 failed, 1 passed, 1 error" in result.stdout
    assert "no Docker engine answers" in result.stdout
    assert "not today" in result.stdout
