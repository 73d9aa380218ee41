"""Sparse files in tar streams: packed without their holes, cut out of streams for engines, bounded."""

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from kohakuriver.client.streams.tree_packing import END, TreePacking, put_below
from kohakuriver.client.streams.tree_unpacking import TreeUnpacking
from kohakuriver.models.errors import EngineFault
from kohakuriver.streams import sparse_tar
from kohakuriver.streams.sparse_cuts import SparseCuts, SparseFile
from kohakuriver.streams.sparse_tar import MapReader

MIB = 1 << 20
BLOCK = 512


def sparse_file(path: Path, size: int = 16 * MIB) -> bytes:
    """Content at its beginning, in the middle and close to its end; returns all of it."""
    with path.open("wb") as file:
        for place in (0, size // 2 + 5, size - 70_000):
            file.seek(place)
            file.write(os.urandom(5000))
        file.truncate(size)
    return path.read_bytes()


def packed(path: Path, name: str = "top") -> bytes:
    return b"".join(TreePacking((7, 8), pytest.fail).pack(str(path), name)) + END


def room(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A sparse file between others, one of them of a long name that is no text."""
    top = tmp_path / "tree"
    (top / "deep").mkdir(parents=True)
    (top / "a").write_bytes(b"a" * 1000)
    sparse_file(top / "deep/disk.img")
    sparse_file(Path(os.fsdecode(os.fsencode(top) + b"/deep/\xff" + b"n" * 200)))
    (top / "hole").touch()
    os.truncate(top / "hole", 10 * MIB)
    (top / "z").write_bytes(b"z" * 1000)
    return top


def contents(top: Path) -> dict[bytes, str]:
    """What the files hold, as digests: what is not the same is shown."""
    found = {}
    for folder, _, names in os.walk(os.fsencode(top)):
        for name in names:
            path = os.path.join(folder, name)
            content = Path(os.fsdecode(path)).read_bytes()
            found[os.path.relpath(path, os.fsencode(top))] = hashlib.sha256(content).hexdigest()
    return found


def test_holes_cost_nothing_in_the_stream_and_every_reader_sees_the_file(tree: Path, tmp_path: Path) -> None:
    stream = packed(tree)
    assert len(stream) < 2 * MIB
    TreeUnpacking(str(tmp_path / "ours"), pytest.fail).unpack(iter([stream]))
    (tmp_path / "theirs").mkdir()
    subprocess.run(["tar", "-xf", "-", "-C", str(tmp_path / "theirs")], input=stream, check=True)
    for copy in (tmp_path / "ours", tmp_path / "theirs/top"):
        assert contents(copy) == contents(tree)
        assert room(copy / "deep/disk.img") < MIB
        assert (copy / "deep/disk.img").stat().st_mtime == (tree / "deep/disk.img").stat().st_mtime


def test_a_file_of_more_holes_than_are_told_is_told_with_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_tar, "MOST_PARTS", 4)
    path = tmp_path / "holey"
    with path.open("wb") as file:
        for place in (*range(0, 30 * 100_000, 100_000), 10 * MIB):
            os.pwrite(file.fileno(), b"x" * 100, place)
    stream = packed(path)
    assert len(stream) < 4 * MIB
    assert stream[1536:1538] == b"3\n", "two parts and the end"
    TreeUnpacking(str(tmp_path / "copy"), pytest.fail).unpack(iter([stream]))
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_sparse_files_of_another_tools_stream_stay_sparse(form: str, tree: Path, tmp_path: Path) -> None:
    command = ["tar", "-S", f"--format={form}", "-C", str(tree.parent), "-cf", "-", tree.name]
    stream = subprocess.run(command, check=True, capture_output=True).stdout
    below = b"".join(put_below(io.BytesIO(stream), "a/b")) + END
    assert len(below) < 2 * MIB
    with tarfile.open(fileobj=io.BytesIO(below)) as archive:
        assert {member.type for member in archive} == {tarfile.REGTYPE, tarfile.DIRTYPE}
    TreeUnpacking(str(tmp_path / "copy"), pytest.fail).unpack(iter([below]))
    assert contents(tmp_path / "copy/b/tree") == contents(tree)


def cut(stream: bytes, piece_bytes: int) -> tuple[bytes, list[SparseFile]]:
    """What an engine gets, and what is cut out, which is skipped."""
    cuts, passed, found = SparseCuts(), b"", []
    rest = b""
    skip = 0
    pieces = [stream[place : place + piece_bytes] for place in range(0, len(stream), piece_bytes)]
    while rest or pieces:
        piece, rest = rest or pieces.pop(0), b""
        if skip:
            step = min(skip, len(piece))
            skip, rest = skip - step, piece[step:]
            continue
        before, sparse, rest = cuts.take(piece)
        passed += before
        if sparse is not None:
            found.append(sparse)
            passed += sparse.empty
            skip = -(-sparse.stored_bytes // BLOCK) * BLOCK
    return passed + cuts.rest(), found


@pytest.mark.parametrize("piece_bytes", [100, 512, 4096, 1 << 20])
def test_sparse_files_are_cut_out_wherever_the_stream_is_cut(piece_bytes: int, tree: Path) -> None:
    passed, found = cut(packed(tree), piece_bytes)
    assert sorted(sparse.name.rpartition(b"/")[2][:2] for sparse in found) == [b"di", b"ho", b"\xffn"]
    assert {sparse.size for sparse in found} == {16 * MIB, 10 * MIB}
    with tarfile.open(fileobj=io.BytesIO(passed), errors="surrogateescape") as archive:
        members = {member.name: member for member in archive}
    assert len(members) == 7
    image = members["top/deep/disk.img"]
    assert (image.type, image.size, image.uid, image.gid) == (tarfile.REGTYPE, 0, 7, 8)
    assert float(image.pax_headers["mtime"]) == pytest.approx((tree / "deep/disk.img").stat().st_mtime)
    assert members["top/z"].size == 1000


def test_a_stream_without_sparse_files_passes_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "dense").write_bytes(os.urandom(MIB))
    stream = packed(tmp_path) + b"what follows the end"
    assert cut(stream, 1000) == (stream, [])


def head_of(tmp_path: Path) -> bytes:
    sparse_file(tmp_path / "f")
    return packed(tmp_path / "f")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"realsize=16777216", b"realsize=-6777216"),
        (b"name=top", b"name=t\0p"),
        (b"GNU.sparse.realsize=16777216", b"GNU.sparse.realsizf=16777216"),
    ],
    ids=["negative", "NUL in a name", "no size"],
)
def test_heads_that_cannot_be_end_the_stream(old: bytes, new: bytes, tmp_path: Path) -> None:
    stream = head_of(tmp_path)
    assert old in stream
    with pytest.raises(EngineFault):
        SparseCuts().take(stream.replace(old, new))


@pytest.mark.parametrize(
    "text",
    [
        b"-1\n",
        b"99999999999\n",
        b"2\n0\n50\n40\n10\n",
        b"1\n90\n20\n",
        b"x\n",
        b"50000\n" + b"0000000000000000000\n" * 100_000,
        b"0" * (2 << 20),
    ],
    ids=["negative", "many", "overlapping", "outside", "no number", "without end", "one long line"],
)
def test_maps_that_cannot_be_are_refused_and_bounded(text: bytes) -> None:
    reader = MapReader(100)

    def take_all() -> None:
        for place in range(0, len(text), BLOCK):
            reader.take(text[place : place + BLOCK])

    with pytest.raises(EngineFault):
        take_all()


def test_headers_without_end_are_refused() -> None:
    info = tarfile.TarInfo("f")
    info.pax_headers = {"comment": "x" * 100_000}
    headers = info.tobuf(tarfile.PAX_FORMAT)[:-BLOCK]
    cuts = SparseCuts()
    with pytest.raises(EngineFault, match="far too large"):
        cuts.take(headers * 100)
    assert len(cuts.rest()) == 0
