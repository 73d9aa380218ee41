"""What is said about files and folders, in the words of today's clients and of earlier ones."""

import os
from pathlib import Path

import pytest

from kohakuriver.files.changing import rename_file, write_file
from kohakuriver.files.looking import list_folder, stat_file
from kohakuriver.files.rooted_fs import RootedFs


def test_hidden_names_are_left_out_where_they_are_not_wanted(fs: RootedFs, inside: Path) -> None:
    for name in (".profile", "a", "b", ".x"):
        (inside / name).touch()
    page = list_folder(fs, "/")
    assert ([entry.name for entry in page.entries], page.total) == ([".profile", ".x", "a", "b"], 4)
    page = list_folder(fs, "/", show_hidden=False, limit=1)
    assert ([entry.name for entry in page.entries], page.total) == (["a"], 2)
    rest = list_folder(fs, "/", page.next_cursor, show_hidden=False)
    assert [entry.name for entry in rest.entries] == ["b"]


def test_a_folder_names_the_one_that_it_is_in(fs: RootedFs, inside: Path) -> None:
    (inside / "a/b").mkdir(parents=True)
    assert [list_folder(fs, path).parent for path in ("/", "/a", "/a/b/")] == [None, "/", "/a"]


def test_a_file_tells_its_time_and_rights_in_both_forms(fs: RootedFs, inside: Path) -> None:
    (inside / "run.sh").write_text("#!/bin/sh\n")
    (inside / "run.sh").chmod(0o750)
    os.utime(inside / "run.sh", (1_700_000_000, 1_700_000_000))
    (entry,) = list_folder(fs, "/").entries
    assert (entry.mtime, entry.permissions, entry.mode) == (1_700_000_000, "-rwxr-x---", "0750")
    assert entry.modified_at.timestamp() == entry.mtime


@pytest.mark.parametrize(
    ("content", "is_binary"),
    [(b"", False), ("grüße\n".encode(), False), (b"a\0b", True), (b"\xff\xfe", True), (b"\xc3" * 9000, True)],
)
def test_a_file_tells_whether_it_is_text(fs: RootedFs, inside: Path, content: bytes, is_binary: bool) -> None:
    (inside / "x").write_bytes(content)
    found = stat_file(fs, "/x")
    assert (found.is_binary, found.is_readable, found.is_writable) == (is_binary, True, True)
    assert found.owner == str(os.getuid())


def test_a_character_that_the_looked_at_beginning_cuts_is_no_sign_of_a_binary_file(
    fs: RootedFs, inside: Path
) -> None:
    (inside / "x").write_text("x" * 8191 + "ü")
    assert stat_file(fs, "/x").is_binary is False


def test_what_is_no_file_is_neither_text_nor_binary(fs: RootedFs, inside: Path) -> None:
    os.mkfifo(inside / "fifo")
    found = stat_file(fs, "/fifo")
    assert (found.is_binary, found.is_readable, found.is_writable) == (None, False, False)
    assert (stat_file(fs, "/").is_binary, stat_file(fs, "/").is_readable) == (None, True)


def test_a_change_says_what_it_did(fs: RootedFs) -> None:
    done = write_file(fs, "/a/b", b"hello", create_parents=True)
    assert (done.success, done.size, done.path) == (True, 5, "/a/b")
    done = rename_file(fs, "/a/b", "/a/c")
    assert (done.success, done.source, done.destination) == (True, "/a/b", "/a/c")
