"""Trees packed into tar streams and unpacked again: exactly, and safely where a stranger made the stream."""

import io
import os
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.client.streams.tree_packing import END, TreePacking, put_below
from kohakuriver.client.streams.tree_unpacking import TreeUnpacking, only_file
from kohakuriver.models.errors import Conflict, EngineFault, InvalidInput, KohakuRiverError, NotFound
from kohakuriver.streams.tar_end import TarEnd
from support.messages.file_trees import facts_of, make_tree

OWNER = (7, 8)


def packed(path: Path, name: str) -> bytes:
    return b"".join(TreePacking(OWNER, pytest.fail).pack(str(path), name)) + END


def unpack(stream: bytes, target: Path, piece_bytes: int = 1000) -> list[str]:
    skipped: list[str] = []
    pieces = (stream[place : place + piece_bytes] for place in range(0, len(stream), piece_bytes))
    TreeUnpacking(str(target), skipped.append).unpack(pieces)
    return skipped


def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", many=300)
    os.utime(tmp_path / "tree/sub/twin", ns=(1, 1_600_000_000_123_456_789))
    os.utime(tmp_path / "tree/plain", ns=(1, -1_500_000_000))
    unpack(packed(tmp_path / "tree", "anything"), tmp_path / "copy")
    assert facts_of(tmp_path / "copy") == facts_of(tmp_path / "tree")


def test_a_copy_over_an_older_one_makes_it_the_same(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    stream = packed(tmp_path / "tree", "t")
    unpack(stream, tmp_path / "copy")
    (tmp_path / "copy/plain").write_text("changed")
    (tmp_path / "copy/relative").unlink()
    (tmp_path / "copy/relative").symlink_to("elsewhere")
    unpack(stream, tmp_path / "copy")
    assert facts_of(tmp_path / "copy") == facts_of(tmp_path / "tree")


def test_everything_gets_the_owner_that_was_given(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path / "tree", "t"))) as archive:
        assert {(member.uid, member.gid, member.uname) for member in archive} == {(7, 8, "")}


def test_what_a_folder_holds_is_packed_without_it(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    packing = TreePacking(OWNER, pytest.fail)
    stream = b"".join(packing.pack(str(tmp_path / "tree"), "a/b", itself=False)) + END
    with tarfile.open(fileobj=io.BytesIO(stream), errors="surrogateescape") as archive:
        names = {os.fsencode(name) for name in archive.getnames()}
    assert names == {b"a/b/" + path for path in facts_of(tmp_path / "tree") if path != b"."}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_stream_of_another_tool_is_put_below_a_folder(form: int, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as archive:
        archive.add(tmp_path / "tree", "./top")
    buffer.seek(0)
    unpack(b"".join(put_below(buffer, "a/b")) + END, tmp_path / "copy")
    assert facts_of(tmp_path / "copy/b/top") == facts_of(tmp_path / "tree")
    with pytest.raises(InvalidInput, match="leads elsewhere"):
        list(put_below(io.BytesIO(archive_of(("../x", FILE))), "a"))
    with pytest.raises(InvalidInput, match="not all of one"):
        list(put_below(io.BytesIO(buffer.getvalue()[:700]), "a"))


def test_a_socket_is_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "tree/socket"))
    skipped: list[str] = []
    assert list(TreePacking(OWNER, skipped.append).pack(str(tmp_path / "tree"), "t"))
    assert skipped == [str(tmp_path / "tree/socket")]


def test_a_file_that_shrinks_while_it_is_packed_ends_the_stream(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(1 << 20))
    pieces = TreePacking(OWNER, pytest.fail).pack(str(file), "file")
    next(pieces)
    next(pieces)
    os.truncate(file, 10)
    with pytest.raises(Conflict, match="shorter"):
        list(pieces)


def test_what_is_not_there_or_not_readable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        packed(tmp_path / "missing", "x")


Entry = tuple[str, dict[str, Any]]


def archive_of(*entries: Entry) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, fields in entries:
            info = tarfile.TarInfo(name)
            content = fields.get("content", b"")
            for key, value in fields.items():
                if key != "content":
                    setattr(info, key, value)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


FOLDER = {"type": tarfile.DIRTYPE, "mode": 0o755}
FILE = {"content": b"hostile", "mode": 0o644}


def link(target: str) -> dict[str, Any]:
    return {"type": tarfile.SYMTYPE, "linkname": target}


def hard_link(target: str) -> dict[str, Any]:
    return {"type": tarfile.LNKTYPE, "linkname": target}


HOSTILE: dict[str, tuple[Entry, ...]] = {
    "upwards": (("t", FOLDER), ("t/../../secret", FILE)),
    "absolute": (("t", FOLDER), ("/secret", FILE)),
    "beside": (("t", FOLDER), ("secret", FILE)),
    "through a link": (("t", FOLDER), ("t/l", link("../..")), ("t/l/secret", FILE)),
    "through an absolute link": (("t", FOLDER), ("t/l", link("OUTSIDE")), ("t/l/secret", FILE)),
    "through the top as a link": (("t", link("OUTSIDE")), ("t/secret", FILE)),
    "folder over a link": (("t", FOLDER), ("t/l", link("OUTSIDE")), ("t/l", FOLDER), ("t/l/secret", FILE)),
    "hard link upwards": (("t", FOLDER), ("t/h", hard_link("../secret")), ("t/h", FILE)),
    "hard link through a link": (
        ("t", FOLDER),
        ("t/l", link("OUTSIDE")),
        ("t/h", hard_link("t/l/secret")),
    ),
    "nothing but dots": (("..", FILE),),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_stream_writes_nothing_elsewhere(case: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("mine")
    (tmp_path / "secret").write_text("mine")
    work = tmp_path / "work"
    work.mkdir()
    entries = [
        (name, {key: str(outside) if value == "OUTSIDE" else value for key, value in fields.items()})
        for name, fields in HOSTILE[case]
    ]
    with pytest.raises(KohakuRiverError):
        unpack(archive_of(*entries), work / "copy")
    assert sorted(os.listdir(tmp_path)) == ["outside", "secret", "work"]
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_text() == (tmp_path / "secret").read_text() == "mine"
    assert set(os.listdir(work)) <= {"copy"}


def test_a_file_replaces_a_link_of_its_name_and_not_what_that_points_at(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    stream = archive_of(("t", FOLDER), ("t/x", link(str(tmp_path / "mine"))), ("t/x", FILE))
    unpack(stream, tmp_path / "copy")
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "copy/x").is_symlink()


def test_links_that_stood_here_before_are_not_written_through_either(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/sub").symlink_to("../elsewhere")
    with pytest.raises(Conflict, match="no folder"):
        unpack(archive_of(("t", FOLDER), ("t/sub", FOLDER), ("t/sub/x", FILE)), tmp_path / "copy")
    with pytest.raises(Conflict, match="nothing is written through it"):
        unpack(archive_of(("t", FOLDER), ("t/sub/x", FILE)), tmp_path / "copy")
    assert os.listdir(tmp_path / "elsewhere") == []


def test_devices_are_left_out_and_dangerous_bits_not_given(tmp_path: Path) -> None:
    device = {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}
    stream = archive_of(("t", FOLDER), ("t/null", device), ("t/su", {**FILE, "mode": 0o6755}))
    assert unpack(stream, tmp_path / "copy") == ["copy/null"]
    assert os.listdir(tmp_path / "copy") == ["su"]
    assert (tmp_path / "copy/su").stat().st_mode & 0o7777 == 0o755


def test_a_stream_that_is_cut_off_is_an_error_and_leaves_no_short_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(100_000))
    stream = packed(tmp_path / "file", "file")
    for cut in (0, 100, 600, 50_000, len(stream) - len(END)):
        with pytest.raises(EngineFault):
            unpack(stream[:cut], tmp_path / "copy")
        assert cut > 100_000 or sorted(os.listdir(tmp_path)) == ["file"]


def test_an_error_of_the_source_reaches_the_caller_also_behind_the_last_entry(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    stream = packed(tmp_path / "file", "file")

    def breaking() -> Iterator[bytes]:
        yield stream + bytes(1 << 20)
        raise Conflict("broke")

    with pytest.raises(Conflict, match="broke"):
        TreeUnpacking(str(tmp_path / "copy"), pytest.fail).unpack(breaking())


def test_one_file_is_taken_out_of_its_stream(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 700)
    assert b"".join(only_file(iter([packed(tmp_path / "file", "f")]))) == b"x" * 700
    with pytest.raises(EngineFault):
        list(only_file(iter([archive_of(("t", FOLDER))])))


@pytest.mark.parametrize("piece_bytes", [1, 511, 512, 513, 100_000])
def test_the_end_of_a_stream_is_known_wherever_it_is_cut(piece_bytes: int, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / ("l" * 150)).write_bytes(b"x" * 1500)
    (tmp_path / "tree/b").symlink_to("y" * 200)
    (tmp_path / "tree/zeros").write_bytes(bytes(4096))
    stream = packed(tmp_path / "tree", "new\n12 size=9")

    def is_whole(data: bytes) -> bool:
        end = TarEnd()
        for place in range(0, len(data), piece_bytes):
            end.take(data[place : place + piece_bytes])
        return end.is_whole

    assert is_whole(stream)
    for cut in range(0, len(stream) - len(END), 509 if piece_bytes > 1 else 1499):
        assert not is_whole(stream[:cut]), cut


def test_sizes_beyond_eight_gibibytes_are_understood_in_both_spellings() -> None:
    for spelling in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        info = tarfile.TarInfo("large")
        info.size = 9 << 30
        end = TarEnd()
        end.take(info.tobuf(spelling))
        piece = bytes(1 << 20)
        for _ in range(9 << 10):
            end.take(piece)
        assert not end.is_whole
        end.take(END)
        assert end.is_whole


def test_what_is_no_tar_stream_is_told() -> None:
    with pytest.raises(EngineFault):
        TarEnd().take(b'{"message": "no such thing"}' * 30)
