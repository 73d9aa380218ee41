"""Writing to a descriptor writes all, however little the kernel takes at once."""

import os
from pathlib import Path

import pytest

from kohakuriver import descriptors


@pytest.mark.parametrize("place", [None, 3])
def test_all_is_written_where_the_kernel_takes_a_byte_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int | None
) -> None:
    write, pwrite = os.write, os.pwrite
    monkeypatch.setattr(os, "write", lambda to, data: write(to, data[:1]))
    monkeypatch.setattr(os, "pwrite", lambda to, data, at: pwrite(to, data[:1], at))
    path = tmp_path / "file"
    path.write_bytes(b"......")
    file = os.open(path, os.O_WRONLY)
    try:
        descriptors.write_all(file, b"abc", place)
    finally:
        os.close(file)
    assert path.read_bytes() == (b"abc..." if place is None else b"...abc")
