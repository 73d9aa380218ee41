"""What the tests of files begin with: a folder that a workload would call its root."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kohakuriver.files.rooted_fs import RootedFs
from kohakuriver.files.system.kernel_mounts import KernelMounts


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """What the workload calls `/`. Beside it lies `secret`, which nothing may reach."""
    (tmp_path / "secret").write_text("of the host")
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def fs(inside: Path) -> Iterator[RootedFs]:
    root = os.open(inside, os.O_PATH | os.O_DIRECTORY)
    try:
        yield RootedFs(root, KernelMounts())
    finally:
        os.close(root)
