"""Images of a container with all that it holds: an engine leaves out of them what lies in volumes.

What an image declares as a volume (VOLUME), and what was mounted as one, is kept by the engine outside of the
container. Here it becomes part of the image, which declares no volume any more. Folders of the machine that
are mounted (binds) belong to the machine and stay out.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import PurePosixPath
from typing import Any

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import CHUNK_BYTES, commit_container, import_tree, remove_image
from kohakuriver.models.errors import Conflict, NotFound

_KEPT_CONFIG = ("Env", "WorkingDir", "User", "Entrypoint", "Cmd", "ExposedPorts", "StopSignal", "Shell")
_NOT_RUN = "/not-run"


async def commit_whole(api: DockerApi, container: str, config: dict[str, Any], draft: str) -> str:
    """Make an untagged image as `commit_container` does, what lies in volumes included; return its id.

    `draft`: name of a container that stands for the image while it is made. A running container is frozen
    while it is read.
    """
    facts = await api.json("GET", f"containers/{container}/json")
    places = sorted(mount["Destination"] for mount in facts["Mounts"] if mount["Type"] == "volume")
    if not places:
        return await commit_container(api, container, config)
    await _remove(api, draft)  # left by a crash
    async with frozen(api, container):
        bare = await _tree_of(api, container)
        try:
            return await _with_volumes(api, container, places, (draft, bare), config)
        except BaseException:
            await asyncio.shield(remove_image(api, bare))
            raise


async def _with_volumes(
    api: DockerApi, container: str, places: list[str], made: tuple[str, str], config: dict[str, Any]
) -> str:
    draft, bare = made
    facts = await api.json("GET", f"containers/{container}/json")
    try:
        await api.create_container(draft, _body(facts["Config"], bare))
        for place in places:
            await copy_disk(api, container, draft, place)
        return await commit_container(api, draft, config)
    finally:
        await asyncio.shield(_remove(api, draft))


@contextlib.asynccontextmanager
async def frozen(api: DockerApi, container: str) -> AsyncIterator[None]:
    """As the engine itself does it for a commit: what does not run, or is frozen already, is left alone."""
    try:
        await api.json("POST", f"containers/{container}/pause")
    except Conflict:
        yield
        return
    try:
        yield
    finally:
        await asyncio.shield(api.json("POST", f"containers/{container}/unpause"))


async def _tree_of(api: DockerApi, container: str) -> str:
    """An image of one layer, without configuration, of the container's own disk."""
    async with api.stream("GET", f"containers/{container}/export") as answer:
        tree = answer.content.iter_chunked(CHUNK_BYTES)
        return await import_tree(api, tree, (), lambda _progress: None)


def _body(config: dict[str, Any], image: str) -> dict[str, Any]:
    """What the container was made with, but for its volumes, and for labels that say what it is to us."""
    kept = {name: config[name] for name in _KEPT_CONFIG if config.get(name)}
    labels = config.get("Labels") or {}
    kept["Labels"] = {name: value for name, value in labels.items() if not name.startswith("kohakuriver.")}
    if not kept.get("Entrypoint") and not kept.get("Cmd"):
        kept["Entrypoint"] = [_NOT_RUN]  # an engine makes no container without one
    return {**kept, "Image": image}


async def copy_disk(api: DockerApi, source: str, target: str, place: str) -> None:
    """Copy a folder with owners and modes into the same place of another container."""
    async with api.stream("GET", f"containers/{source}/archive", params={"path": place}) as answer:
        await api.json(
            "PUT",
            f"containers/{target}/archive",
            params={"path": str(PurePosixPath(place).parent)},
            data=answer.content.iter_chunked(CHUNK_BYTES),
            headers={"Content-Type": "application/x-tar"},
        )


async def _remove(api: DockerApi, container: str) -> None:
    with contextlib.suppress(NotFound, Conflict):
        await api.json("DELETE", f"containers/{container}", params={"force": "1", "v": "1"})
