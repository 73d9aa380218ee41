"""Files below a root: nothing outside is reached, only files are read, a write is whole or not at all."""

import base64
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from kohakuriver.files import changing, rooted_fs
from kohakuriver.files import faults as file_faults
from kohakuriver.files.changing import content_of, delete_file, make_folder, rename_file, write_file
from kohakuriver.files.looking import list_folder, read_file, stat_file
from kohakuriver.files.records import MAX_READ_BYTES, MAX_WRITE_BYTES, Encoding, FileType
from kohakuriver.files.rooted_fs import RootedFs
from kohakuriver.files.system.kernel_mounts import read_kernel_mounts
from kohakuriver.models.errors import (
    Conflict,
    Denied,
    InvalidInput,
    KohakuRiverError,
    NoCapacity,
    NotFound,
    TooLarge,
    Unavailable,
)


def test_links_and_dots_end_at_the_root(fs: RootedFs, inside: Path) -> None:
    outside = inside.parent / "secret"
    (inside / "etc").mkdir()
    (inside / "absolute").symlink_to(outside)
    (inside / "upwards").symlink_to("../../../../../../.." + str(outside))
    (inside / "folder").symlink_to("..")
    for path in (
        "/absolute",
        "/upwards",
        "/folder/secret",
        "/../secret",
        "/etc/../../secret",
        "//..//secret",
        f"/etc/../..{outside}",
    ):
        with pytest.raises(NotFound):
            read_file(fs, path)
    (inside / "secret").write_text("of the workload")
    assert read_file(fs, "/folder/secret").content == "of the workload"


def test_a_link_within_the_root_is_followed(fs: RootedFs, inside: Path) -> None:
    (inside / "data").mkdir()
    (inside / "data/real").write_text("text")
    (inside / "data/link").symlink_to("/data/real")
    assert read_file(fs, "/data/link").content == "text"
    found = stat_file(fs, "/data/link")
    assert (found.type, found.link_target, found.is_dir) == (FileType.SYMLINK, "/data/real", False)


@pytest.mark.parametrize("path", ["", "relative", "/a\0b", "/" + "x" * 5000, "/\udcff"])
def test_a_path_that_can_be_none_is_refused(fs: RootedFs, path: str) -> None:
    with pytest.raises(InvalidInput):
        stat_file(fs, path)


@pytest.mark.parametrize("path", ["/proc/1/status", "/sys", "//dev/null", "/etc/../proc", "/./sys/x"])
def test_places_of_the_kernel_are_refused_by_name(fs: RootedFs, inside: Path, path: str) -> None:
    (inside / "etc").mkdir()
    for look in (read_file, stat_file, list_folder, delete_file):
        with pytest.raises(Denied, match="belongs to the kernel"):
            look(fs, path)
    with pytest.raises(Denied):
        write_file(fs, path, b"")


def test_a_mount_of_the_kernel_is_refused_however_it_is_reached(tmp_path: Path) -> None:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        fs = RootedFs(root, read_kernel_mounts(Path("/proc/self/mountinfo").read_bytes()))
        for name, target in (("p", "/proc"), ("d", "/dev"), ("m", "/proc/self/mounts")):
            (tmp_path / name).symlink_to(target)
        for path in (f"{tmp_path}/p/version", f"{tmp_path}/d/null", f"{tmp_path}/m", f"{tmp_path}/p/1/root"):
            with pytest.raises((Denied, InvalidInput)):
                read_file(fs, path)
        with pytest.raises(Denied):
            list_folder(fs, f"{tmp_path}/p")
    finally:
        os.close(root)


def test_mounts_of_the_kernel_are_known_by_place_and_by_kind() -> None:
    table = b"""\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 0:5 / /proc rw shared:1 - proc proc rw
22 20 0:6 / /dev rw - tmpfs tmpfs rw
23 22 8:2 /data /dev/data rw - ext4 /dev/sdb1 rw
24 20 0:5 / /opt/p rw - proc proc rw
25 20 8:2 /data /data rw - ext4 /dev/sdb1 rw
26 20 0:9 / /development rw - tmpfs tmpfs rw
"""
    found = read_kernel_mounts(table)
    assert found.mounts == {21, 22, 23, 24}
    assert found.devices == {os.makedev(0, 5), os.makedev(0, 6)}


def test_what_is_no_regular_file_is_neither_opened_nor_waited_for(fs: RootedFs, inside: Path) -> None:
    os.mkfifo(inside / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(inside / "socket"))
    (inside / "folder").mkdir()
    (inside / "link").symlink_to("fifo")
    for path, word in (
        ("/fifo", "a FIFO"),
        ("/socket", "a socket"),
        ("/folder", "a folder"),
        ("/link", "FIFO"),
    ):
        with pytest.raises(Conflict, match=word):
            read_file(fs, path)
        with pytest.raises(Conflict, match=word):
            write_file(fs, path, b"x")


@pytest.mark.root
def test_a_device_is_never_opened(fs: RootedFs, inside: Path) -> None:
    os.mknod(inside / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with pytest.raises(Conflict, match="a device"):
        read_file(fs, "/null")
    assert stat_file(fs, "/null").type is FileType.CHARACTER_DEVICE


def test_a_large_file_costs_what_was_asked_for(fs: RootedFs, inside: Path) -> None:
    with (inside / "sparse").open("wb") as file:
        file.truncate(50 << 30)
    found = read_file(fs, "/sparse", Encoding.BASE64)
    assert (found.size, found.truncated) == (50 << 30, True)
    assert len(base64.b64decode(found.content)) == MAX_READ_BYTES
    assert read_file(fs, "/sparse", Encoding.BASE64, 3).content == "AAAA"


def test_text_ends_at_a_whole_character_and_binary_is_said_to_be_none(fs: RootedFs, inside: Path) -> None:
    (inside / "text").write_text("aü")
    assert read_file(fs, "/text", limit=2).content == "a"
    (inside / "binary").write_bytes(b"\xff\x00")
    with pytest.raises(InvalidInput, match="encoding=base64"):
        read_file(fs, "/binary")
    assert base64.b64decode(read_file(fs, "/binary", Encoding.BASE64).content) == b"\xff\x00"


def test_pages_of_a_folder_hold_each_entry_once(fs: RootedFs, inside: Path) -> None:
    names = [f"{number:04}" for number in range(2500)]
    for name in names:
        (inside / name).touch()
    (inside / "0000").unlink()
    seen: list[str] = []
    cursor = None
    while True:
        page = list_folder(fs, "/", cursor)
        assert page.total == 2499
        assert len(page.entries) <= 1000
        seen += [entry.name for entry in page.entries]
        cursor = page.next_cursor
        if cursor is None:
            break
        (inside / "0000").touch()  # what changes between two pages moves nothing
        (inside / "0000").unlink()
    assert seen == names[1:]
    with pytest.raises(InvalidInput, match="next_cursor"):
        list_folder(fs, "/", "ü")


def test_entries_tell_what_they_are(fs: RootedFs, inside: Path) -> None:
    (inside / "file").write_text("four")
    (inside / "file").chmod(0o640)
    os.utime(inside / "file", (1_000_000_000, 1_000_000_000))
    os.mkdir(os.fsencode(inside) + b"/\xff\n")
    page = list_folder(fs, "/")
    file, folder = page.entries
    assert (file.name, file.path, file.size, file.mode) == ("file", "/file", 4, "0640")
    assert file.modified_at.isoformat() == "2001-09-09T01:46:40+00:00"
    assert (folder.name, folder.is_dir) == ("�\n", True)
    assert base64.b64decode(folder.raw_name or "") == b"\xff\n"


def test_a_written_file_keeps_mode_and_owner(fs: RootedFs, inside: Path) -> None:
    (inside / "script").write_text("old")
    (inside / "script").chmod(0o751)
    if os.getuid() == 0:
        os.chown(inside / "script", 123, 456)
    before = (inside / "script").stat()
    write_file(fs, "/script", b"new")
    after = (inside / "script").stat()
    assert (inside / "script").read_text() == "new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


@pytest.mark.root
def test_what_is_new_belongs_to_whom_its_folder_belongs(fs: RootedFs, inside: Path) -> None:
    (inside / "mine").mkdir()
    os.chown(inside / "mine", 1000, 1001)
    write_file(fs, "/mine/a/b/c", b"x", create_parents=True)
    make_folder(fs, "/mine/d")
    for path in ("mine/a", "mine/a/b", "mine/a/b/c", "mine/d"):
        found = (inside / path).stat()
        assert (found.st_uid, found.st_gid) == (1000, 1001), path
    assert stat.S_IMODE((inside / "mine/a/b/c").stat().st_mode) == 0o644


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    fs: RootedFs, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inside / "file").write_text("old")

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoCapacity, match="no room left where /file lies"):
        write_file(fs, "/file", b"new")
    assert os.listdir(inside) == ["file"]
    assert (inside / "file").read_text() == "old"


def test_a_reader_never_sees_half_a_write(fs: RootedFs, inside: Path) -> None:
    contents = [bytes([letter]) * 300_000 for letter in b"ab"]
    write_file(fs, "/file", contents[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                write_file(fs, "/file", content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(100):
            assert (inside / "file").read_bytes() in contents
    finally:
        stop.set()
        writer.join()


def test_a_write_through_a_link_replaces_what_it_points_at(fs: RootedFs, inside: Path) -> None:
    (inside / "real").mkdir()
    (inside / "link").symlink_to("real/../real/file")
    (inside / "out").symlink_to("/../../secret")
    write_file(fs, "/link", b"x")
    write_file(fs, "/out", b"y")
    assert (inside / "link").is_symlink()
    assert (inside / "real/file").read_text() == "x"
    assert (inside / "secret").read_text() == "y"
    assert (inside.parent / "secret").read_text() == "of the host"
    (inside / "circle").symlink_to("circle")
    with pytest.raises(InvalidInput, match="circle"):
        write_file(fs, "/circle", b"z")


def test_missing_parents_are_made_only_when_asked(fs: RootedFs, inside: Path) -> None:
    with pytest.raises(NotFound):
        write_file(fs, "/a/b", b"")
    with pytest.raises(NotFound):
        make_folder(fs, "/a/b")
    make_folder(fs, "/a/b", create_parents=True)
    with pytest.raises(Conflict, match="exists already"):
        make_folder(fs, "/a/b")
    (inside / "file").touch()
    with pytest.raises(Conflict):
        write_file(fs, "/file/x/y", b"", create_parents=True)


def test_content_is_decoded_and_its_size_is_bounded() -> None:
    assert content_of("ü", Encoding.UTF_8) == b"\xc3\xbc"
    assert content_of("AP8=", Encoding.BASE64) == b"\x00\xff"
    with pytest.raises(InvalidInput, match="base64"):
        content_of("?", Encoding.BASE64)
    with pytest.raises(TooLarge, match="kohakuriver cp"):
        content_of("x" * (MAX_WRITE_BYTES + 1), Encoding.UTF_8)


def test_a_rename_replaces_only_when_asked(fs: RootedFs, inside: Path) -> None:
    (inside / "a").write_text("a")
    (inside / "b").write_text("b")
    with pytest.raises(Conflict, match="/b exists already"):
        rename_file(fs, "/a", "/b")
    assert (inside / "b").read_text() == "b"
    rename_file(fs, "/a", "/b", overwrite=True)
    assert (inside / "b").read_text() == "a"
    rename_file(fs, "/b", "/c")
    assert os.listdir(inside) == ["c"]
    with pytest.raises(NotFound, match="no /missing"):
        rename_file(fs, "/missing", "/d")
    (inside / "link").symlink_to("../secret")
    rename_file(fs, "/link", "/moved")
    assert os.readlink(inside / "moved") == "../secret"


def test_a_rename_works_where_the_file_system_cannot_promise_a_free_name(
    fs: RootedFs, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown_flag(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(changing, "renameat2", unknown_flag)
    (inside / "a").write_text("a")
    (inside / "b").write_text("b")
    with pytest.raises(Conflict):
        rename_file(fs, "/a", "/b")
    rename_file(fs, "/a", "/c")
    assert sorted(os.listdir(inside)) == ["b", "c"]


def test_a_folder_is_deleted_only_when_all_of_it_is_meant(fs: RootedFs, inside: Path) -> None:
    (inside / "keep").mkdir()
    (inside / "keep/me").touch()
    (inside / "tree/deep").mkdir(parents=True)
    (inside / "tree/deep/file").touch()
    (inside / "tree/link").symlink_to("/keep")
    (inside / "tree/out").symlink_to("../../secret")
    with pytest.raises(Conflict, match="recursive"):
        delete_file(fs, "/tree")
    delete_file(fs, "/tree", recursive=True)
    assert os.listdir(inside) == ["keep"]
    assert (inside / "keep/me").exists()
    assert (inside.parent / "secret").exists()
    for path in ("/", "/keep/.", "/keep/.."):
        with pytest.raises(InvalidInput):
            delete_file(fs, path, recursive=True)


def test_a_tree_of_any_depth_is_deleted(fs: RootedFs, inside: Path) -> None:
    here = os.open(inside, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    delete_file(fs, "/d", recursive=True)
    assert os.listdir(inside) == []


def test_exchanges_of_a_folder_for_a_link_lead_nowhere(fs: RootedFs, inside: Path) -> None:
    """One thread swaps a folder and a link that points outside, while others read and write through it."""
    outside = inside.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("of the host")
    (inside / "folder").mkdir()
    (inside / "folder/file").write_text("of the workload")
    (inside / "link").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(inside / "folder", inside / "aside")
            os.rename(inside / "link", inside / "folder")
            os.rename(inside / "folder", inside / "link")
            os.rename(inside / "aside", inside / "folder")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(2000):
            try:
                assert read_file(fs, "/folder/file").content in ("of the workload", "new")
                write_file(fs, "/folder/file", b"new")
                delete_file(fs, "/folder/file")
                write_file(fs, "/folder/file", b"new")
            except KohakuRiverError:
                continue
    finally:
        stop.set()
        swapper.join()
    assert (outside / "file").read_text() == "of the host"
    assert os.listdir(outside) == ["file"]


def test_an_old_kernel_is_named_as_the_reason(fs: RootedFs, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: object) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(rooted_fs, "openat2", lacking)
    with pytest.raises(Unavailable, match=r"Linux 5\.6"):
        rooted_fs.refuse_old_kernel(fs.root)
    with pytest.raises(Unavailable, match=r"Linux 5\.6"):
        read_file(fs, "/x")


def test_errors_of_the_system_become_sentences_about_the_path() -> None:
    for number, kind in ((30, Conflict), (13, Denied), (28, NoCapacity), (2, NotFound), (40, InvalidInput)):
        error = file_faults.fault_of(OSError(number, "x"), b"/a")
        assert type(error) is kind
        assert "/a" in str(error)
