"""Tar streams that are made to hold up or to fill whoever reads them, in each place that reads one."""

import tarfile
from pathlib import Path

import pytest

from kohakuriver.client.streams.tree_unpacking import TreeUnpacking, only_file
from kohakuriver.dockerapi.tarballs import BrokenTarball, _members
from kohakuriver.models.errors import EngineFault
from kohakuriver.streams.tar_end import TarEnd
from support.tar_headers import extended, header, record
from support.time_limit import ends_soon

END = bytes(1024)


SIZES_THAT_CANNOT_BE = {
    "negative, extended": extended(record("size", "-1024")) + header("f", 0),
    "negative, of Solaris": extended(record("size", "-1024"), b"X") + header("f", 0),
    "negative, for all": extended(record("size", "-1024"), b"g") + header("f", 0),
    "one for all": extended(record("size", "512"), b"g") + header("f", 0),
    "negative, of a sparse file": extended(record("GNU.sparse.realsize", "-512")) + header("f", 0),
    "negative, octal": header("f", b"-0000001000"),
    "negative, base 256": header("f", b"\xff" * 11 + b"\x00"),
    "of 2^80, base 256": header("f", b"\x80" + (1 << 80).to_bytes(11, "big")),
    "of 2^63, extended": extended(record("size", str(1 << 63))) + header("f", 0),
    "of 4,000 digits": extended(record("size", "9" * 4000)) + header("f", 0),
    "with underscores": extended(record("size", "1_0")) + header("f", 0),
    "a record of length 0": extended(b"0 size=1\n") + header("f", 0),
    "a record shorter than its length": extended(b"2 size=1\n") + header("f", 0),
    "a record of negative length": extended(b"-9 size=1\n") + header("f", 0),
}


@pytest.mark.parametrize("stream", SIZES_THAT_CANNOT_BE.values(), ids=SIZES_THAT_CANNOT_BE)
def test_a_size_that_cannot_be_ends_the_reading(stream: bytes) -> None:
    with ends_soon(), pytest.raises(EngineFault):
        TarEnd().take(stream + bytes(4096) + END)
    with ends_soon(), pytest.raises(EngineFault):
        list(only_file(iter([stream + bytes(4096) + END])))


def test_a_stream_of_empty_extended_headers_keeps_nothing() -> None:
    end = TarEnd()
    end.take(header("PaxHeader", 0, b"x") + header("f", 64 << 20))
    for _ in range(64):
        end.take(bytes(1 << 20))
        assert sum(len(held) for held in vars(end).values() if isinstance(held, (bytes, bytearray))) < 1024
    end.take(END)
    assert end.is_whole


def test_an_environments_tarball_with_a_negative_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "base-1.tar"
    path.write_bytes(header("first", 512) + bytes(512) + SIZES_THAT_CANNOT_BE["negative, extended"] + END)
    with path.open("rb") as file, ends_soon(), pytest.raises(BrokenTarball):
        _members(file.fileno(), path.stat().st_size)


def test_a_header_that_makes_no_sense_is_not_taken_for_the_end(tmp_path: Path) -> None:
    spoilt = header("hidden", 0).replace(b"0000644", b"0000645")  # its checksum does not fit
    stream = header("top", 0) + spoilt + header("behind", 0) + END
    path = tmp_path / "base-1.tar"
    path.write_bytes(stream)
    with path.open("rb") as file, pytest.raises(BrokenTarball, match="bad checksum"):
        _members(file.fileno(), path.stat().st_size)
    with pytest.raises(EngineFault):
        TreeUnpacking(str(tmp_path / "copy"), lambda _: None).unpack(iter([stream]))


def test_sound_streams_are_still_whole() -> None:
    for spelling in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        info = tarfile.TarInfo("f")
        info.size = 700
        end = TarEnd()
        end.take(info.tobuf(spelling) + bytes(1024) + END)
        assert end.is_whole
    end = TarEnd()
    end.take(extended(record("comment", "of all"), b"g") + extended(record("size", "600")) + header("f", 0))
    end.take(bytes(1024) + END)
    assert end.is_whole
