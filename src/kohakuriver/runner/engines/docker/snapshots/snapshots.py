"""Snapshots of VPSs as images of the engine: made, listed, chosen and deleted.

Rules: a snapshot has its name only once it is whole; each has a time of its own, and a later one a higher
one; an image without a name that a running VPS still stands on goes when the VPS does. Not locked:
the caller sees to it that one VPS has one call at a time.
"""

import contextlib
import json
import time

import structlog

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import commit_container, inspect_image, remove_image, tag_image
from kohakuriver.dockerapi.layer_holes import keep_holes, keep_holes_of_new
from kohakuriver.models.errors import Conflict, EngineFault, KohakuRiverError, NotFound, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.models.names import LABEL_SNAPSHOT, snapshot_repository
from kohakuriver.models.vps import FROM_IMAGE, FROM_NEWEST
from kohakuriver.runner.engines.contract.faults import EngineFull, says_full
from kohakuriver.runner.engines.contract.vps import KeptSnapshots, Snapshot
from kohakuriver.runner.engines.docker.inside.kept_edits import Edits, decode_edits, encode_edits
from kohakuriver.runner.engines.docker.inside.network_files import PLACES
from kohakuriver.runner.engines.docker.labels import LABEL_EDITS, snapshot_labels
from kohakuriver.runner.engines.docker.snapshots.one_layer import (
    WHOLE,
    flat_image,
    is_too_deep,
    remove_copies,
    without_volumes,
)

_log = structlog.get_logger()
_FULL = (
    "the Docker engine of this node has no room on its disk for a snapshot ({error}); "
    "make some (docker system df shows what uses it), or delete older snapshots"
)


class Snapshots:
    def __init__(self, api: DockerApi) -> None:
        self._api = api

    async def take(
        self, task_id: TaskId, container_id: str, message: str, kept: KeptSnapshots, edits: Edits
    ) -> Snapshot:
        """Keep what the disk holds; delete what `kept` has no place for. A failed one leaves nothing."""
        times = await self.times(task_id)
        at = max(int(time.time()), times[0] + 1 if times else 0)
        try:
            image_id = await self._image_of(task_id, container_id, message, encode_edits(edits))
            await tag_image(self._api, image_id, snapshot_repository(task_id), str(at))
        except EngineFault as error:
            await self.sweep(task_id)
            if says_full(str(error)):
                raise EngineFull(_FULL.format(error=error)) from error
            raise EngineFault(f"the engine made no snapshot: {error}") from error
        await self._prune(task_id, kept.too_old([at, *times]))
        return await self._read(task_id, at)

    async def _image_of(self, task_id: TaskId, container_id: str, message: str, edits: str) -> str:
        if await is_too_deep(self._api, container_id):
            begun = time.time()
            image_id = await flat_image(self._api, task_id, container_id, message, edits)
            await keep_holes_of_new(self._api, image_id, begun)
            return image_id
        labels = {"Labels": snapshot_labels(task_id, edits)}
        image_id = await commit_container(self._api, container_id, labels, comment=message)
        await keep_holes(self._api, image_id, container_id)
        return image_id

    async def _prune(self, task_id: TaskId, times: list[int]) -> None:
        """What cannot go now is tried again with the next snapshot: the new one is made all the same."""
        for at in times:
            try:
                await self._drop(task_id, at)
            except KohakuRiverError as error:
                _log.warning("snapshot_not_deleted", task_id=str(task_id), at=at, error=str(error))
        await self.sweep(task_id)

    async def times(self, task_id: TaskId) -> list[int]:
        """Newest first."""
        repository = snapshot_repository(task_id)
        filters = json.dumps({"reference": [repository]})
        rows = await self._api.json("GET", "images/json", params={"filters": filters})
        tags = [tag.removeprefix(f"{repository}:") for row in rows for tag in row.get("RepoTags") or ()]
        return sorted((int(tag) for tag in tags if tag.isdecimal()), reverse=True)

    async def task_ids(self) -> list[TaskId]:
        """Those of which there are snapshots."""
        prefix = snapshot_repository(TaskId(0)).removesuffix("0")
        filters = json.dumps({"reference": [f"{prefix}*"]})
        rows = await self._api.json("GET", "images/json", params={"filters": filters})
        tags = [tag for row in rows for tag in row.get("RepoTags") or ()]
        names = {tag.rpartition(":")[0].removeprefix(prefix) for tag in tags}
        return [TaskId(int(name)) for name in names if name.isdecimal()]

    async def list(self, task_id: TaskId) -> list[Snapshot]:
        """Newest first; one that is deleted meanwhile is left out."""
        found = []
        for at in await self.times(task_id):
            with contextlib.suppress(NotFound):
                found.append(await self._read(task_id, at))
        return found

    async def chosen(self, task_id: TaskId, restore: str) -> str | None:
        """The image that `VpsSetup.restore` means; None: the VPS's own. Raises EngineFault."""
        if restore == FROM_IMAGE:
            return None
        times = await self.times(task_id)
        if restore == FROM_NEWEST:
            return reference(task_id, times[0]) if times else None
        if not restore.isdecimal() or int(restore) not in times:
            raise EngineFault(
                f"snapshot {restore} of VPS {task_id} is not on this node; "
                f"`kohakuriver vps snapshot list {task_id}` shows those that there are"
            )
        return reference(task_id, int(restore))

    async def base(self, task_id: TaskId, image: str) -> str:
        """The image to make a new VPS from: a declared volume would be in no snapshot of it."""
        return await without_volumes(self._api, task_id, image)

    async def edits_in(self, task_id: TaskId, image: str) -> Edits:
        """What users had changed in the VPS's files of ours when the image was made; {} for any other."""
        if not image.startswith(f"{snapshot_repository(task_id)}:"):
            return {}
        facts = await inspect_image(self._api, image)
        return decode_edits(facts.labels.get(LABEL_EDITS, ""), PLACES) if facts is not None else {}

    async def delete(self, task_id: TaskId, at: int) -> None:
        if at not in await self.times(task_id):
            raise NotFound(f"VPS {task_id} has no snapshot of the time {at} on this node")
        await self._drop(task_id, at)
        await self.sweep(task_id)

    async def sweep(self, task_id: TaskId) -> None:
        """Remove images of the VPS that have no name (any more) and that nothing stands on."""
        filters = json.dumps({"label": [f"{LABEL_SNAPSHOT}={task_id}"], "dangling": ["true"]})
        try:
            await remove_copies(self._api, task_id)
            for row in await self._api.json("GET", "images/json", params={"filters": filters}):
                with contextlib.suppress(Conflict):
                    await remove_image(self._api, row["Id"])
        except (EngineFault, Unavailable) as error:
            _log.warning("snapshots_not_swept", task_id=str(task_id), error=str(error))

    async def _drop(self, task_id: TaskId, at: int) -> None:
        try:
            await remove_image(self._api, reference(task_id, at), force=True)
        except KohakuRiverError as error:
            raise EngineFault(f"snapshot {at} of VPS {task_id} cannot be deleted: {error}") from error

    async def _read(self, task_id: TaskId, at: int) -> Snapshot:
        history = await self._api.json("GET", f"images/{reference(task_id, at)}/history")
        # One in a layer of its own adds what it was imported with.
        is_whole = len(history) > 1 and history[1]["Comment"] == WHOLE
        size_bytes = sum(row["Size"] for row in history[: 2 if is_whole else 1])
        return Snapshot(at, history[0]["Comment"], size_bytes)


def reference(task_id: TaskId, at: int) -> str:
    return f"{snapshot_repository(task_id)}:{at}"
