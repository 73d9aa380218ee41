"""A container's disk as an image of one layer, where a further layer on its image will not do.

An engine stacks some 125 layers and no more, of which each snapshot that a VPS is started from is one.
And what an image declares as a volume is kept by the engine outside of the container, and so in no snapshot.
"""

import asyncio
import contextlib

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import CHUNK_BYTES, commit_container, import_tree
from kohakuriver.dockerapi.whole_disk import frozen
from kohakuriver.models.errors import Conflict, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.models.names import LABEL_SNAPSHOT
from kohakuriver.runner.engines.docker.labels import snapshot_labels

WHOLE = "kohakuriver: the whole disk of a session"
"""Comment in the history of an image that was made here."""

MOST_LAYERS = 100
_NOT_RUN = "/not-run"


async def is_too_deep(api: DockerApi, container_id: str) -> bool:
    """Whether the container stands on so many layers that there should not be more."""
    facts = await api.json("GET", f"containers/{container_id}/json")
    image = await api.json("GET", f"images/{facts['Image']}/json")
    return len(image["RootFS"].get("Layers") or ()) >= MOST_LAYERS


async def without_volumes(api: DockerApi, task_id: TaskId, image: str) -> str:
    """The image itself if it declares no volume, else one of the same content that does not (no name)."""
    config = (await api.json("GET", f"images/{image}/json")).get("Config") or {}
    if not config.get("Volumes"):
        return image
    await remove_copies(api, task_id)
    source = _copy_names(task_id)[0]
    await api.create_container(source, {"Image": image, "Entrypoint": [_NOT_RUN]})
    try:
        return await flat_image(api, task_id, source, "")
    finally:
        await asyncio.shield(_remove(api, source))


async def flat_image(
    api: DockerApi, task_id: TaskId, container_id: str, comment: str, edits: str = ""
) -> str:
    """Make an unnamed image of one layer; a running container is frozen meanwhile. Return its id."""
    config = (await api.json("GET", f"containers/{container_id}/json"))["Config"]
    label = f"LABEL {LABEL_SNAPSHOT}={task_id}"
    async with (
        frozen(api, container_id),
        api.stream("GET", f"containers/{container_id}/export") as answer,
    ):
        tree = answer.content.iter_chunked(CHUNK_BYTES)
        bare = await import_tree(api, tree, (label,), lambda _progress: None, comment=WHOLE)
    # An import takes no configuration but as lines of a Dockerfile, in which not everything can be said.
    copy = _copy_names(task_id)[1]
    await _remove(api, copy)
    body = {"Image": bare, "Entrypoint": [_NOT_RUN], "Env": config["Env"], "WorkingDir": config["WorkingDir"]}
    await api.create_container(copy, body)
    try:
        labels = {"Labels": snapshot_labels(task_id, edits)}
        return await commit_container(api, copy, labels, comment=comment)
    finally:
        await asyncio.shield(_remove(api, copy))


async def remove_copies(api: DockerApi, task_id: TaskId) -> None:
    """Remove containers that an earlier runner may have left half-way."""
    for name in _copy_names(task_id):
        await _remove(api, name)


def _copy_names(task_id: TaskId) -> tuple[str, str]:
    return f"kohakuriver-vps-{task_id}-source", f"kohakuriver-vps-{task_id}-copy"


async def _remove(api: DockerApi, name: str) -> None:
    with contextlib.suppress(NotFound, Conflict):
        await api.json("DELETE", f"containers/{name}", params={"force": "1", "v": "1"})
