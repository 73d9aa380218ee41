"""Holes of a session's sparse files in the layers that the engine makes of its disk.

An engine moves content as tar streams, in which a hole is zeros, and writes them all down. What was sparse in
the container is made so again in the new layer, before anything stands on it. That takes an engine whose
folders this runner can write to; elsewhere the layer stays as it is.
"""

import asyncio
from pathlib import Path

import structlog

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.files.sparse import dig_holes
from kohakuriver.models.errors import KohakuRiverError

_log = structlog.get_logger()


async def keep_holes(api: DockerApi, image_id: str, container_id: str) -> None:
    """Have files of the image's newest layer be sparse where the container's own are; never fails."""
    try:
        layer = await _upper_dir(api, f"images/{image_id}/json")
        disk = await _upper_dir(api, f"containers/{container_id}/json")
        if layer is None or disk is None:
            return
        given_back = await asyncio.to_thread(dig_holes, layer, disk)
    except (KohakuRiverError, OSError) as error:
        _log.warning("holes_not_kept", image=image_id, reason=str(error))
        return
    if given_back:
        _log.info("holes_kept", image=image_id, given_back_bytes=given_back)


async def _upper_dir(api: DockerApi, path: str) -> Path | None:
    """Where what a container changed, or a layer holds, lies on this machine."""
    driver = (await api.json("GET", path)).get("GraphDriver") or {}
    upper = (driver.get("Data") or {}).get("UpperDir")
    return Path(upper) if upper and Path(upper).is_absolute() else None
