"""A line in /etc/passwd and /etc/group for the user of a task, in front of those that the image has.

Without it programs do not know who they are: `whoami`, `getpass.getuser()`, ssh and git fail. The image's own
files are read once for each image, from a container that is never started. The first line of an id or a name
counts, so ours comes first and all others stay.
"""

import asyncio
import contextlib
import io
import posixpath
import tarfile
from collections import OrderedDict
from dataclasses import dataclass

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import Conflict, NotFound
from kohakuriver.runner.engines.contract.spec import UserIds, WorkloadSpec
from kohakuriver.runner.engines.docker.inside.own_folder import goes_by_itself
from kohakuriver.runner.engines.docker.labels import Owner

PASSWD, GROUP = "/etc/passwd", "/etc/group"
_MOST_BYTES = 1 << 20
_MOST_LINKS = 8
_MOST_IMAGES = 64
_NOT_RUN = "/not-run"
_ROOT_LINES = {PASSWD: b"root:x:0:0:root:/root:/bin/sh\n", GROUP: b"root:x:0:\n"}


@dataclass(frozen=True, slots=True)
class Accounts:
    """Contents of the two files."""

    passwd: bytes
    group: bytes


def with_user(image: Accounts, user: UserIds) -> Accounts:
    """The image's accounts with those of the user before them."""
    account = f"{user.account}:x:{user.uid}:{user.gid}::{user.home}:/bin/sh\n"
    names = dict(user.group_names)
    names.setdefault(user.gid, user.account)
    groups = "".join(f"{name}:x:{gid}:\n" for gid, name in sorted(names.items()))
    return Accounts(account.encode() + image.passwd, groups.encode() + image.group)


class ImageAccounts:
    """What images have in the two files; the last that were asked for are kept in memory."""

    def __init__(self, api: DockerApi, owner: Owner) -> None:
        self._api = api
        self._labels = owner.labels
        self.container_name = f"kohakuriver-accounts-{owner.suffix}"
        self._known: OrderedDict[str, Accounts] = OrderedDict()
        self._reading = asyncio.Lock()

    async def of_task(self, spec: WorkloadSpec, image_id: str) -> Accounts | None:
        """None: its user is root, whom images know. Raises what the engine says to a container of it."""
        return await self.of(image_id) if goes_by_itself(spec) else None

    async def of(self, image_id: str) -> Accounts:
        async with self._reading:
            found = self._known.pop(image_id, None) or await self._read(image_id)
            self._known[image_id] = found
            if len(self._known) > _MOST_IMAGES:
                self._known.popitem(last=False)
            return found

    async def clear(self) -> None:
        """Remove what an earlier runner may have left half-way."""
        with contextlib.suppress(NotFound, Conflict):
            await self._api.json(
                "DELETE", f"containers/{self.container_name}", params={"force": "1", "v": "1"}
            )

    async def _read(self, image_id: str) -> Accounts:
        body = {"Image": image_id, "Entrypoint": [_NOT_RUN], "Labels": self._labels}
        await self.clear()
        try:
            container = await self._api.create_container(self.container_name, body)
            return Accounts(await self._file(container, PASSWD), await self._file(container, GROUP))
        finally:
            await asyncio.shield(self.clear())

    async def _file(self, container: str, path: str) -> bytes:
        """Its whole lines, as many as fit; links are followed in the container's own root."""
        place = path
        for _ in range(_MOST_LINKS):
            try:
                entry, content = await self._entry(container, place)
            except NotFound:
                break
            if not entry.issym():
                lines = content[: content.rfind(b"\n") + 1] if len(content) == _MOST_BYTES else content
                return lines if not lines or lines.endswith(b"\n") else lines + b"\n"
            place = posixpath.normpath(posixpath.join(posixpath.dirname(place), entry.linkname))
        return _ROOT_LINES[path]

    async def _entry(self, container: str, path: str) -> tuple[tarfile.TarInfo, bytes]:
        beginning = bytearray()
        async with self._api.stream(
            "GET",
            f"containers/{container}/archive",
            params={"path": path},
            headers={"Accept-Encoding": "identity"},
        ) as answer:
            async for piece in answer.content.iter_any():
                beginning += piece
                if len(beginning) > 2 * _MOST_BYTES:
                    break
        return _first_entry(bytes(beginning))


def _first_entry(archive: bytes) -> tuple[tarfile.TarInfo, bytes]:
    """Raises NotFound for what is no archive of a file or a link."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r|") as entries:
            entry = entries.next()
            if entry is not None and entry.issym():
                return entry, b""
            file = entries.extractfile(entry) if entry is not None and entry.isfile() else None
            if entry is not None and file is not None:
                return entry, file.read(_MOST_BYTES)
    except (tarfile.TarError, EOFError) as error:
        raise NotFound("the engine gave no file") from error
    raise NotFound("the engine gave no file")
