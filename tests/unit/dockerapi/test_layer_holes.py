"""Holes in layers of images that came from archives: dug in what is new, and in nothing else."""

import asyncio
import json
import os
import tarfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import pytest

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.layer_holes import keep_holes_of_archive
from kohakuriver.dockerapi.tarballs import OpenTarball
from kohakuriver.models.errors import EngineFault

MIB = 1 << 20


class Engine:
    """One that keeps the layers of each image in folders."""

    def __init__(self, layers: list[Path] | None) -> None:
        self._layers = layers

    async def json(self, method: str, path: str) -> dict[str, Any]:
        assert (method, path) == ("GET", "images/sha256:x/json")
        if self._layers is None:
            raise EngineFault("it is down")
        upper, *lower = map(str, self._layers)
        return {"GraphDriver": {"Data": {"UpperDir": upper, "LowerDir": ":".join(lower)}}} if upper else {}


def layer(folder: Path, age_seconds: float) -> Path:
    (folder / "diff").mkdir(parents=True)
    (folder / "diff" / "disk.img").write_bytes(b"begin" + bytes(4 * MIB))
    (folder / "link").write_text("SHORT")
    moment = time.time() - age_seconds
    os.utime(folder / "link", (moment, moment))
    return folder / "diff"


def archive(path: Path, *, sparse: bool) -> OpenTarball:
    with tarfile.open(path, "w") as made:
        for name, content in (("manifest.json", _index()), ("config", b"{}"), ("layer", bytes(MIB))):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, BytesIO(content))
    if sparse:
        whole = path.read_bytes()
        path.unlink()
        with path.open("wb") as file:
            file.write(whole[: 64 << 10].rstrip(b"\0"))
            file.truncate(len(whole))
    return OpenTarball(path)


def _index() -> bytes:
    return json.dumps([{"Config": "config", "Layers": ["layer"], "RepoTags": None}]).encode()


def room(folder: Path) -> int:
    return (folder / "disk.img").stat().st_blocks * 512


@pytest.mark.parametrize("sparse", [True, False])
def test_zeros_of_an_archive_with_holes_take_no_room_in_layers_that_are_new(
    tmp_path: Path, sparse: bool
) -> None:
    new, old = layer(tmp_path / "new", 0), layer(tmp_path / "old", 3600)
    engine = cast("DockerApi", Engine([new, old]))
    tarball = archive(tmp_path / "tar", sparse=sparse)
    try:
        assert tarball.has_holes is sparse
        asyncio.run(keep_holes_of_archive(engine, tarball, ["sha256:x"], time.time()))
    finally:
        tarball.close()
    assert (room(new) < MIB, room(old) < MIB) == (sparse, False)
    assert (new / "disk.img").read_bytes() == b"begin" + bytes(4 * MIB)


@pytest.mark.parametrize("layers", [None, [Path("/nowhere/diff")], [Path()]])
def test_where_layers_cannot_be_reached_they_stay_as_they_are(
    tmp_path: Path, layers: list[Path] | None
) -> None:
    tarball = archive(tmp_path / "tar", sparse=True)
    try:
        engine = cast("DockerApi", Engine(layers))
        asyncio.run(keep_holes_of_archive(engine, tarball, ["sha256:x"], time.time()))
    finally:
        tarball.close()
