"""Tarballs that are half, corrupt or no tarballs at all, on the real engine."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import (
    file_chunks,
    load_stream,
    save_image,
)
from kohakuriver.models.errors import EngineFault, NotFound, Unavailable
from kohakuriver.runner.engines.contract.spec import ImageChoice
from kohakuriver.runner.images.environment_images import EnvironmentImages
from support.image_records import MakeTarball, id_of, ignore, node_images, tags_of

pytest_plugins = ["support.image_fixtures"]
pytestmark = [pytest.mark.anyio, pytest.mark.docker]


def _cut(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def _garble_layer(path: Path) -> None:
    with tarfile.open(path) as archive:
        index = archive.extractfile("manifest.json")
        assert index is not None
        layer = archive.getmember(json.load(index)[0]["Layers"][0])
    with path.open("r+b") as file:
        file.seek(layer.offset_data)
        file.write(b"\xff" * 1024)


def _replace_index(index: object) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        content = json.dumps(index).encode()
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(content)
        with tarfile.open(path, "w") as archive:
            archive.addfile(entry, io.BytesIO(content))

    return replace


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(lambda path: _cut(path, 0.9), "cut off", id="cut-off-late"),
        pytest.param(lambda path: _cut(path, 0.3), "cut off", id="cut-off-early"),
        pytest.param(lambda path: _cut(path, 0), "no tar archive", id="empty"),
        pytest.param(lambda path: path.write_bytes(os.urandom(20_000)), "no tar archive", id="no-archive"),
        pytest.param(_garble_layer, "the engine says", id="garbled-layer"),
        pytest.param(_replace_index([]), "exactly one image", id="no-image"),
        pytest.param(_replace_index({"a": 1}), "exactly one image", id="foreign-index"),
        pytest.param(
            _replace_index([{"Config": "c.json", "Layers": ["l/layer.tar"]}]),
            "2 of its parts are missing",
            id="missing-parts",
        ),
        pytest.param(_replace_index([{"Config": 5, "Layers": []}]), "incomplete", id="wrong-types"),
    ],
)
async def test_a_half_or_corrupt_tarball_is_named_and_the_version_in_use_stays(
    api: DockerApi,
    images: EnvironmentImages,
    environment: str,
    make_tarball: MakeTarball,
    damage: Callable[[Path], None],
    reason: str,
) -> None:
    await make_tarball(7)
    await images.ensure(ImageChoice(environment), ignore)
    before = await id_of(api, f"kohakuriver/{environment}:base")
    path, _ = await make_tarball(8, b"two")
    damage(path)
    with pytest.raises(EngineFault, match=f"{path.name} cannot be used: .*{reason}"):
        await images.ensure(ImageChoice(environment), ignore)
    assert await tags_of(api, environment) == ["7", "base"]
    assert await id_of(api, f"kohakuriver/{environment}:base") == before


async def test_a_tarball_with_two_images_is_refused(
    api: DockerApi, images: EnvironmentImages, environment: str, make_tarball: MakeTarball
) -> None:
    await make_tarball(7, references=2)
    with pytest.raises(EngineFault, match="exactly one image"):
        await images.ensure(ImageChoice(environment), ignore)
    assert await tags_of(api, environment) == []


async def test_links_and_pipes_named_like_tarballs_are_not_tarballs(
    api: DockerApi, images: EnvironmentImages, environment: str, make_tarball: MakeTarball, tmp_path: Path
) -> None:
    path, _ = await make_tarball(7)
    path.rename(tmp_path / "elsewhere")
    (tmp_path / f"{environment}-8.tar").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / f"{environment}-9.tar")
    with pytest.raises(NotFound):
        await images.ensure(ImageChoice(environment), ignore)


async def test_a_folder_that_cannot_be_read_is_unavailable(api: DockerApi, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    images = node_images(api, tmp_path / "file")
    with pytest.raises(Unavailable, match="cannot be read"):
        await images.ensure(ImageChoice("some-name"), ignore)


async def test_a_tarball_that_cannot_be_read_is_not_blamed_on_the_engine(
    api: DockerApi, tmp_path: Path
) -> None:
    with pytest.raises(IsADirectoryError):
        await load_stream(api, file_chunks(tmp_path), ignore)


async def test_saving_writes_over_no_file(api: DockerApi, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("precious")
    with pytest.raises(FileExistsError):
        await save_image(api, [busybox], tmp_path / "there")
    assert (tmp_path / "there").read_text() == "precious"
