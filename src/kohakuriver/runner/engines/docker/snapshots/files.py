"""Snapshots as files on shared storage, to be restored on another node.

Rules: a file has its name only once it is whole and safe on disk; nobody but the runners' user reads it. What
is read back may have been put there by anybody: it is taken in only if it holds the one image that the file
is named for, the names in it are left out on the way, and what turns out to be another image is removed.
"""

import asyncio
import os
import time
import uuid
from pathlib import Path

import structlog

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import inspect_image, load_stream, remove_image, save_image, tag_image
from kohakuriver.dockerapi.layer_holes import keep_holes_of_archive
from kohakuriver.dockerapi.tarballs import BrokenTarball, OpenTarball
from kohakuriver.files.system.linkless import folder_below
from kohakuriver.models.errors import Conflict, EngineFault, NotFound, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.models.names import LABEL_SNAPSHOT, snapshot_repository
from kohakuriver.runner.engines.contract.faults import EngineFull, says_full, storage_fault
from kohakuriver.runner.engines.docker.snapshots.snapshots import reference

_PRIVATE_MODE = 0o700

_log = structlog.get_logger()


async def export_snapshot(api: DockerApi, task_id: TaskId, at: int, path: Path) -> None:
    """Write the snapshot's archive in the place of one that is there; raises NotFound.

    `path` is two folders of ours below the shared storage.
    """
    name = reference(task_id, at)
    if await inspect_image(api, name) is None:
        raise NotFound(f"VPS {task_id} has no snapshot of the time {at} on this node")
    try:
        folder = await asyncio.to_thread(_open_folder, path)
        try:
            await _export_into(api, name, folder, path.name)
        finally:
            os.close(folder)
    except OSError as error:
        raise storage_fault("a VPS's snapshot", path, error) from error


def _open_folder(path: Path) -> int:
    """Open, or make, the two folders that are ours; a link in the place of one would lead anywhere."""
    start = path.parents[2]
    names = path.parent.relative_to(start).parts
    with folder_below(start, names, made_with=_PRIVATE_MODE, access=os.O_RDONLY) as folder:
        return os.dup(folder)


async def _export_into(api: DockerApi, image: str, folder: int, name: str) -> None:
    here = Path(f"/proc/self/fd/{folder}")
    draft = here / f".{name}.{uuid.uuid4().hex}.draft"
    try:
        await save_image(api, [image], draft)
        await asyncio.to_thread(_put_in_place, draft, here / name, folder)
    finally:
        await asyncio.shield(asyncio.to_thread(draft.unlink, missing_ok=True))


def _put_in_place(draft: Path, path: Path, folder: int) -> None:
    draft.chmod(0o600)
    draft.rename(path)
    os.fsync(folder)


async def import_snapshot(api: DockerApi, task_id: TaskId, at: int, path: Path) -> None:
    """Take in what `export_snapshot` wrote; raises NotFound, EngineFault for another file, Unavailable."""
    name = reference(task_id, at)
    if await inspect_image(api, name) is not None:
        return
    try:
        archive = await asyncio.to_thread(OpenTarball, path)
        try:
            if archive.names != (name,):
                raise BrokenTarball(f"it does not hold the image {name} and nothing else")
            image_id = await _load(api, task_id, archive)
        finally:
            archive.close()
    except BrokenTarball as error:
        raise EngineFault(f"the file {path} is no snapshot of this VPS: {error}") from error
    except FileNotFoundError as error:
        raise NotFound(f"there is no snapshot at {path}") from error
    except OSError as error:
        raise Unavailable(f"the snapshot {path} cannot be read: {error.strerror or error}") from error
    await tag_image(api, image_id, snapshot_repository(task_id), str(at))


async def _load(api: DockerApi, task_id: TaskId, archive: OpenTarball) -> str:
    """Return the id of the image, which has no name yet; raises BrokenTarball for one of something else."""
    try:
        begun = time.time()
        loaded = await load_stream(api, archive.chunks(), lambda text: _log.debug("snapshot", progress=text))
    except EngineFault as error:
        if says_full(str(error)):
            raise EngineFull(f"the Docker engine has no room for the snapshot: {error}") from error
        raise BrokenTarball(f"the engine says: {error}") from error
    if len(loaded) == 1:
        facts = await inspect_image(api, loaded[0])
        if facts is not None and facts.labels.get(LABEL_SNAPSHOT) == str(task_id):
            await keep_holes_of_archive(api, archive, loaded, begun)
            return facts.id
    for image in loaded:
        await _remove_unnamed(api, image)
    raise BrokenTarball("what it holds was not made as a snapshot of this VPS")


async def _remove_unnamed(api: DockerApi, image: str) -> None:
    """An image that was here before under a name keeps it."""
    facts = await inspect_image(api, image)
    if facts is not None and not facts.tags:
        try:
            await remove_image(api, facts.id)
        except (Conflict, EngineFault) as error:
            _log.warning("foreign_image_not_removed", image=facts.id, error=str(error))
