"""What of an image's archive is sent to an engine: everything but the names that it carries."""

import asyncio
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.dockerapi.tarballs import BrokenTarball, OpenTarball

MANIFEST = [{"Config": "blobs/c", "Layers": ["blobs/l"], "RepoTags": ["theirs:1"]}]
NAMES = {"io.containerd.image.name": "docker.io/library/theirs:1", "org.opencontainers.image.ref.name": "1"}
LAYOUT: dict[str, Any] = {
    "schemaVersion": 2,
    "annotations": NAMES,
    "manifests": [{"digest": "sha256:aa", "size": 3, "annotations": NAMES | {"kept": "yes"}}],
}


def archive(path: Path, **changes: bytes) -> Path:
    contents = {"blobs/c": b"{}", "index.json": json.dumps(LAYOUT).encode(), "blobs/l": b"layer" * 200}
    contents |= {"manifest.json": json.dumps(MANIFEST).encode(), "oci-layout": b"{}"} | changes
    with tarfile.open(path, "w") as made:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return path


def sent(path: Path) -> dict[str, bytes]:
    async def read() -> bytes:
        opened = OpenTarball(path)
        try:
            return b"".join([chunk async for chunk in opened.chunks()])
        finally:
            opened.close()

    with tarfile.open(fileobj=io.BytesIO(asyncio.run(read()))) as got:
        return {member.name: (got.extractfile(member) or io.BytesIO()).read() for member in got}


def test_both_kinds_of_index_lose_their_names_and_all_else_stays(tmp_path: Path) -> None:
    members = sent(archive(tmp_path / "a.tar"))
    assert b"theirs" not in b"".join(members.values())
    assert list(members) == ["blobs/c", "index.json", "blobs/l", "manifest.json", "oci-layout"]
    assert members["blobs/l"] == b"layer" * 200
    assert json.loads(members["index.json"]) == {
        "schemaVersion": 2,
        "annotations": {},
        "manifests": [{"digest": "sha256:aa", "size": 3, "annotations": {"kept": "yes"}}],
    }
    assert json.loads(members["manifest.json"])[0]["Layers"] == ["blobs/l"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"manifests": [1]}', b'{"manifests": 1}', b"[" * 9999]
)
def test_an_index_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BrokenTarball, match=r"index\.json"):
        OpenTarball(archive(tmp_path / "a.tar", **{"index.json": content}))


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 9999])
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BrokenTarball):
        OpenTarball(archive(tmp_path / "a.tar", **{"manifest.json": content}))


@pytest.mark.parametrize(
    "name", ["./index.json", "/index.json", "x/../index.json", "..", "blobs/c/x", "a//b"]
)
def test_a_member_that_would_be_unpacked_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BrokenTarball, match="odd name"):
        OpenTarball(archive(tmp_path / "a.tar", **{name: b"x"}))
