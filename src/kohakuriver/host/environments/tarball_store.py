"""Environment tarballs in shared storage: exported whole or not at all, listed, deleted.

A tarball is written beside its place under a name that no runner looks at, made safe on disk, and renamed. A
crash leaves at most such a partial file, which the next start or export removes. The time in its name is
newer than that of every version there, whatever the clock says.
"""

import asyncio
import errno
import fcntl
import os
import re
import time
from pathlib import Path

import structlog

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import (
    Progress,
    list_environment_images,
    move_tag,
    remove_image,
    save_image,
    tag_image,
)
from kohakuriver.dockerapi.tarballs import Tarball, list_tarballs
from kohakuriver.host.environments.environment_settings import EnvironmentTarballs
from kohakuriver.models.errors import Conflict, NoCapacity, NotFound, Unavailable
from kohakuriver.models.names import (
    check_environment_name,
    environment_image,
    parse_tarball_name,
    tarball_name,
)
from kohakuriver.private_files import sync_folder

_PARTIAL = re.compile(r"\.(?P<tarball>.+\.tar)\.partial")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_log = structlog.get_logger(__name__)


class TarballStore:
    """The one writer of the folder; which environment may be exported now is decided by the caller."""

    def __init__(self, tar_dir: Path) -> None:
        self._tar_dir = tar_dir

    async def list_environments(self) -> list[EnvironmentTarballs]:
        versions: dict[str, list[Tarball]] = {}
        for tarball in await asyncio.to_thread(list_tarballs, self._tar_dir):
            versions.setdefault(tarball.name, []).append(tarball)
        return [EnvironmentTarballs(name, tuple(found)) for name, found in versions.items()]

    async def inspect(self, name: str) -> EnvironmentTarballs:
        """Return the versions of one environment; raises NotFound if there are none."""
        found = await asyncio.to_thread(list_tarballs, self._tar_dir, check_environment_name(name))
        if not found:
            raise NotFound(
                f"there is no tarball of an environment {name!r}; `kohakuriver docker tar list` shows all"
            )
        return EnvironmentTarballs(name, tuple(found))

    async def delete(self, name: str) -> EnvironmentTarballs:
        """Delete all versions of an environment; return what was deleted. Images on nodes stay."""
        found = await self.inspect(name)
        try:
            # The newest goes last: a crash in between must not make an old version the current one.
            for tarball in found.versions:
                await asyncio.to_thread(tarball.path.unlink, missing_ok=True)
        except OSError as error:
            raise Unavailable(f"{self._tar_dir} cannot be changed: {error.strerror}") from error
        return found

    async def prepare(self, name: str) -> int:
        """Return the version that the next tarball gets, before anything is made for one.

        Raises Unavailable where none could be written.
        """
        try:
            # Not its parents: a shared storage that is not mounted must not be made up on the local disk.
            await asyncio.to_thread(self._tar_dir.mkdir, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"{self._tar_dir} cannot be written: {error.strerror}") from error
        await self.remove_stale_partials()
        return await asyncio.to_thread(self._next_version, name)

    async def export(
        self, api: DockerApi, image_id: str, name: str, version: int, on_progress: Progress
    ) -> Tarball:
        """Write the image as the new current version of the environment, whole or not at all.

        `version` is the one that `prepare` gave. On this engine the image becomes `kohakuriver/NAME:base`,
        once the tarball is there: a runner that shares the engine must not see a base without its tarball.
        """
        path = self._tar_dir / tarball_name(name, version)
        partial = path.with_name(f".{path.name}.partial")
        dated = environment_image(name, str(version))
        repository = dated.rpartition(":")[0]
        await tag_image(api, image_id, repository, str(version))
        try:
            size = await save_image(api, [dated], partial, lambda part: on_progress(f"{path.name}: {part}"))
            await asyncio.to_thread(_put_in_place, partial, path)
        except BaseException as error:
            # Not to be interrupted: a cancelled export leaves no more behind than one that fails.
            await asyncio.shield(self._undo(api, partial, dated))
            if isinstance(error, OSError):
                raise _explained(error, path, self._tar_dir) from error
            raise
        await move_tag(api, image_id, repository, "base")
        for known in await list_environment_images(api):
            if known.name == name and known.tag not in ("base", str(version)):
                await remove_image(api, environment_image(name, known.tag), force=True)
        _log.info("environment_exported", environment=name, version=version, size_bytes=size)
        return Tarball(name, version, path, size)

    async def remove_stale_partials(self) -> list[str]:
        """Remove what crashed exports left; files that are being written, or are not ours, stay."""
        return await asyncio.to_thread(self._remove_stale_partials)

    async def _undo(self, api: DockerApi, partial: Path, dated: str) -> None:
        await asyncio.to_thread(partial.unlink, missing_ok=True)
        await remove_image(api, dated, force=True)

    def _next_version(self, name: str) -> int:
        versions = list_tarballs(self._tar_dir, name)
        version = max([int(time.time()), *(tarball.unix_time + 1 for tarball in versions)])
        if parse_tarball_name(tarball_name(name, version)) is None:
            raise Conflict(f"nothing can be newer than {versions[-1].path}; delete that tarball first")
        return version

    def _remove_stale_partials(self) -> list[str]:
        removed = []
        for path in self._tar_dir.glob(".*.partial"):
            match = _PARTIAL.fullmatch(path.name)
            if match and parse_tarball_name(match["tarball"]) and _is_nobodys(path):
                path.unlink(missing_ok=True)
                removed.append(path.name)
        if removed:
            _log.warning("stale_partials_removed", files=removed)
        return removed


def _is_nobodys(path: Path) -> bool:
    """Whether no process writes the file: a writer holds its lock."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(file)


def _put_in_place(partial: Path, path: Path) -> None:
    partial.rename(path)
    sync_folder(path.parent)


def _explained(error: OSError, path: Path, folder: Path) -> NoCapacity | Unavailable:
    if error.errno in _NO_ROOM:
        return NoCapacity(
            f"there is no room for {path.name} in {folder}; nothing was changed. Delete tarballs that nobody "
            "needs (`kohakuriver docker tar delete`) and try again"
        )
    return Unavailable(f"{path.name} cannot be written to {folder}: {error.strerror or error}")
