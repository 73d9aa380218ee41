"""Holes of sparse files in the layers that an engine makes.

An engine moves content as tar streams, in which a hole is zeros, and writes them all down. Here they are dug
again in layers that are new, before anything stands on them. That takes an engine whose folders this program
can write to; elsewhere layers stay as they are. Nothing here ever fails.
"""

import asyncio
from pathlib import Path

import structlog

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.tarballs import OpenTarball
from kohakuriver.files.sparse import dig_holes
from kohakuriver.models.errors import KohakuRiverError

_CLOCK_SECONDS = 1.0
_log = structlog.get_logger()


async def keep_holes(api: DockerApi, image_id: str, container_id: str) -> None:
    """Have files of the image's newest layer be sparse where the container's own are."""
    try:
        layers = await _layers(api, f"images/{image_id}")
        disks = await _layers(api, f"containers/{container_id}")
        if layers and disks:
            await _dig(image_id, layers[:1], disks[0])
    except (KohakuRiverError, OSError) as error:
        _not_kept(image_id, error)


async def keep_holes_of_archive(
    api: DockerApi, archive: OpenTarball, images: list[str], since: float
) -> None:
    """Have zeros of an archive that is sparse take no room in the layers that came of it since then."""
    if archive.has_holes:
        for image in images:
            await keep_holes_of_new(api, image, since)


async def keep_holes_of_new(api: DockerApi, image: str, since: float) -> None:
    """Have zeros take no room in layers of the image that are here since then (a time of `time.time`)."""
    try:
        layers = await _layers(api, f"images/{image}")
        await _dig(image, await asyncio.to_thread(_made_since, layers, since), None)
    except (KohakuRiverError, OSError) as error:
        _not_kept(image, error)


def _made_since(layers: list[Path], since: float) -> list[Path]:
    """An engine writes the short name of a layer beside it when it makes it, and never again."""
    return [layer for layer in layers if (layer.parent / "link").stat().st_mtime >= since - _CLOCK_SECONDS]


async def _dig(image: str, layers: list[Path], like: Path | None) -> None:
    given_back = 0
    for layer in layers:
        given_back += await asyncio.to_thread(dig_holes, layer, like)
    if given_back:
        _log.info("holes_kept", image=image, given_back_bytes=given_back)


async def _layers(api: DockerApi, path: str) -> list[Path]:
    """Where what a container changed, or the layers of an image, lie on this machine; the newest first."""
    driver = (await api.json("GET", f"{path}/json")).get("GraphDriver") or {}
    data = driver.get("Data") or {}
    folders = [data.get("UpperDir") or "", *(data.get("LowerDir") or "").split(":")]
    return [Path(folder) for folder in folders if folder.startswith("/")]


def _not_kept(image: str, error: Exception) -> None:
    _log.warning("holes_not_kept", image=image, reason=str(error))
