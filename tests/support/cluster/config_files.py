"""Configuration files for tests."""

import os
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.config import RUNNER, ConfigFaults, Program, load

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the rule is for root")


def write_config(folder: Path, text: str, name: str = "some_config.py") -> Path:
    """Write a configuration file that root, too, will load."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


def faults_of(path: Path, program: Program[Any] = RUNNER) -> list[str]:
    """What the program would say of the file, a sentence each."""
    try:
        load(program, path).config()
    except ConfigFaults as faults:
        return str(faults).splitlines()
    return []
