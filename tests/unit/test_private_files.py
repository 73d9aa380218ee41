"""Files that are replaced as a whole: nobody sees half of one, and nobody else reads a private one."""

import os
import stat
from pathlib import Path

import pytest

from kohakuriver.models.errors import InvalidInput
from kohakuriver.private_files import read_private, replace_file, write_private


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_private_file_is_replaced_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_private(path) == b"new"
    assert names(tmp_path) == ["key"]


def test_a_private_file_is_on_disk_before_it_takes_its_place_and_its_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "key", []
    real = os.fsync

    def watched(descriptor: int) -> None:
        seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_private(path, b"x")
    assert seen == [(False, False), (True, True)]


def test_a_draft_that_a_crash_left_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "key"
    (tmp_path / ".key.new").write_text("half of")
    write_private(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert names(tmp_path) == ["key"]


def test_a_file_that_cannot_be_put_in_its_place_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.mkdir()
    with pytest.raises(OSError, match=r"key"):
        replace_file(path, b"x")
    assert names(tmp_path) == ["key"]


def test_a_replaced_file_has_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "program"
    replace_file(path, b"#!/bin/sh\n", 0o755, (os.geteuid(), os.getegid()))
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


@pytest.mark.parametrize("spoil", ["mode", "link", "folder"])
def test_what_others_could_have_made_or_read_is_not_read(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "key"
    if spoil == "mode":
        path.write_text("x")
        path.chmod(0o640)
    elif spoil == "link":
        write_private(tmp_path / "real", b"x")
        path.symlink_to(tmp_path / "real")
    else:
        path.mkdir(mode=0o700)
    with pytest.raises(InvalidInput, match=r"key"):
        read_private(path)
