"""Holes in files: what is written from a stream has them, and what was written out gets them back."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.client.streams.tree_packing import END, TreePacking
from kohakuriver.client.streams.tree_unpacking import TreeUnpacking
from kohakuriver.files.sparse import SparseWriter, dig_holes

BLOCK = 1 << 16
SIZE = 64 << 20


def room(path: Path) -> int:
    return path.stat().st_blocks * 512


def sparse_file(path: Path) -> bytes:
    """64 MiB of which only the beginning, a middle and the very end hold something; returns it."""
    with path.open("wb") as file:
        for place, data in ((0, b"begin"), (SIZE // 2 + 3, b"x" * 5000), (SIZE - 3, b"end")):
            file.seek(place)
            file.write(data)
    return path.read_bytes()


PIECES = st.lists(
    st.one_of(
        st.binary(max_size=300),
        st.integers(0, 3 * BLOCK).map(bytes),
        st.integers(1, BLOCK).map(lambda length: b"x" * length),
    ),
    max_size=8,
)


@given(pieces=PIECES)
def test_what_is_written_is_what_was_sent_and_takes_no_more_room(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("sparse") / "file"
    with path.open("wb") as file:
        writer = SparseWriter(file.fileno())
        for piece in pieces:
            writer.write(piece)
        writer.finish()
    assert path.read_bytes() == b"".join(pieces)


def test_zeros_of_a_stream_take_no_room(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        writer = SparseWriter(file.fileno())
        for piece in (b"begin", *[bytes(1000)] * (SIZE // 1000), b"end", bytes(SIZE)):
            writer.write(piece)
        writer.finish()
    assert path.stat().st_size == SIZE // 1000 * 1000 + SIZE + 8
    assert room(path) <= 4 * BLOCK


def test_a_copy_out_of_a_workload_is_as_sparse_as_what_it_is_of(tmp_path: Path) -> None:
    content = sparse_file(tmp_path / "disk.img")
    packing = TreePacking((0, 0), lambda _: None)
    stream = [*packing.pack(str(tmp_path / "disk.img"), "disk.img"), END]
    TreeUnpacking(str(tmp_path / "copy.img"), lambda _: None).unpack(iter(stream))
    copy = tmp_path / "copy.img"
    assert copy.read_bytes() == content
    assert room(copy) <= 8 * BLOCK


def test_holes_are_dug_where_the_original_has_them_and_nowhere_else(tmp_path: Path) -> None:
    disk, layer, treasure = tmp_path / "disk", tmp_path / "layer", tmp_path / "treasure"
    for folder in (disk / "deep", layer / "deep", treasure):
        folder.mkdir(parents=True)
    content = sparse_file(disk / "deep/image")
    for path in (layer / "deep/image", layer / "zeros", treasure / "image", disk / "zeros"):
        path.write_bytes(content if path.name == "image" else bytes(SIZE))
    (disk / "links").symlink_to(disk / "deep")
    (layer / "links").symlink_to(treasure)
    os.utime(layer / "deep/image", ns=(1_000_000_007, 2_000_000_009))
    given_back = dig_holes(layer, disk)
    assert given_back >= SIZE - 16 * BLOCK
    assert (layer / "deep/image").read_bytes() == content
    assert room(layer / "deep/image") <= 8 * BLOCK
    facts = (layer / "deep/image").stat()
    assert (facts.st_size, facts.st_mtime_ns) == (SIZE, 2_000_000_009)
    assert room(layer / "zeros") >= SIZE, "its original was written out too"
    assert room(treasure / "image") >= SIZE, "no link is followed"
    assert dig_holes(layer, disk) == 0


def test_where_there_is_no_original_all_zeros_of_large_files_go_and_what_has_capabilities_stays(
    tmp_path: Path,
) -> None:
    layer = tmp_path / "layer"
    (layer / "deep").mkdir(parents=True)
    content = sparse_file(tmp_path / "image")
    for name in ("deep/image", "program"):
        (layer / name).write_bytes(content)
    (layer / "small").write_bytes(bytes(2 * BLOCK))
    try:
        os.setxattr(
            layer / "program",
            "security.capability",
            bytes.fromhex("0100000200200000000000000000000000000000"),
        )
    except PermissionError:
        pytest.skip("capabilities of files are root's to give")
    before = os.getxattr(layer / "program", "security.capability")
    assert dig_holes(layer, None) >= SIZE - 16 * BLOCK
    assert (layer / "deep/image").read_bytes() == content
    assert room(layer / "deep/image") <= 8 * BLOCK
    assert room(layer / "small") == 2 * BLOCK
    assert room(layer / "program") >= SIZE
    assert os.getxattr(layer / "program", "security.capability") == before
