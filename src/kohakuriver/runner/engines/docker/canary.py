"""A container that prints a text of ours on this engine as a task's would; the output is then read back.

It uses what every task needs: the engine's init, its journal of output, and a folder of the node that tasks
see. It has no network, no rights and nobody's image: that of sandboxes without a client is one program, which
complains of a word where it wants a number. What an earlier runner left of it is removed first.
"""

import asyncio
import os
import secrets
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import EngineFault, KohakuRiverError, NotFound
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.runner.engines.contract.faults import NodeFault
from kohakuriver.runner.engines.docker.labels import Owner
from kohakuriver.runner.engines.docker.output.engine_journal import JournalReader, journal_path
from kohakuriver.runner.engines.docker.sandboxes.image import (
    PAUSE_COMMAND,
    ensure_sandbox_image,
    find_pause_binary,
    image_tar,
)
from kohakuriver.runner.engines.docker.sandboxes.making_time import MakingTime, NotInTime
from kohakuriver.runner.engines.docker.workloads.body import LOG_CONFIG, bind_of

NAME = "kohakuriver-canary-"
"""Begins the name of its container; whose it is follows."""
_MEMORY_BYTES = 32 << 20
LOOKS, _LOOK_SECONDS = 100, 0.05
"""The engine may write the last of a container's output a moment after its end."""
_WHAT = "a container that says one word"
_T = TypeVar("_T")


class Canary:
    """`folder`: one of the node's that tasks see. `prove` may be repeated, but not beside itself."""

    def __init__(self, api: DockerApi, owner: Owner, folder: Mount) -> None:
        self._api = api
        self._owner = owner
        self._folder = folder
        self._making_time = MakingTime()

    async def prove(self, docker_root: Path) -> None:
        """Raise NodeFault that says what keeps tasks from running here, Unavailable without an engine."""
        try:
            await self._making_time.give(self._prove(docker_root))
        except NotInTime as error:
            raise NodeFault(f"{_WHAT} did not come to its end: {error}") from error

    async def _prove(self, docker_root: Path) -> None:
        binary = await asyncio.to_thread(lambda: find_pause_binary().read_bytes())
        image = await ensure_sandbox_image(self._api, image_tar(binary))
        await self._remove()
        try:
            await self._run(image, docker_root)
        finally:
            await asyncio.shield(self._remove())

    async def _run(self, image: str, docker_root: Path) -> None:
        word = secrets.token_hex(8)
        body = canary_body(self._owner, image, word, self._folder)
        container_id = await _step("made", self._api.create_container(self._name, body))
        path = f"containers/{container_id}"
        await _step("started", self._api.json("POST", f"{path}/start"))
        await _step("waited for", self._api.json("POST", f"{path}/wait"))
        journal = journal_path(docker_root, container_id)
        for _ in range(LOOKS):
            if word.encode() in await asyncio.to_thread(_read, journal):
                return
            await asyncio.sleep(_LOOK_SECONDS)
        raise NodeFault(f"{_WHAT} ended, and the word is not in the engine's journal {journal}")

    async def _remove(self) -> None:
        try:
            await self._api.json("DELETE", f"containers/{self._name}", params={"force": "1", "v": "1"})
        except NotFound:
            return

    @property
    def _name(self) -> str:
        return f"{NAME}{self._owner.suffix}"


async def _step(what: str, call: Awaitable[_T]) -> _T:
    try:
        return await call
    except EngineFault as error:
        raise NodeFault(f"{_WHAT} cannot be {what}: {error}") from error


def canary_body(owner: Owner, image: str, word: str, folder: Mount) -> dict[str, Any]:
    """Create-call body: output and first process as a task has them, and no rights at all."""
    return {
        "Image": image,
        "Entrypoint": [PAUSE_COMMAND[0]],
        "Cmd": [word],
        "User": "65534:65534",
        "Labels": owner.labels,
        "HostConfig": {
            "NetworkMode": "none",
            "LogConfig": LOG_CONFIG,
            "Init": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Memory": _MEMORY_BYTES,
            "MemorySwap": _MEMORY_BYTES,
            "Mounts": [bind_of(folder)],
            "RestartPolicy": {"Name": "no"},
        },
    }


def _read(journal: Path) -> bytes:
    """What was said so far; raises NodeFault where it cannot be read."""
    try:
        reader = JournalReader(journal)
    except FileNotFoundError:
        if os.path.isdir(journal.parent.parent):
            return b""  # it is made with the first word
        raise NodeFault(
            f"the engine's data is not at {journal.parents[3]} on this machine, or this runner cannot "
            "see it; output of tasks is read there"
        ) from None
    except OSError as error:
        raise NodeFault(
            f"the engine's journal {journal} cannot be read ({error.strerror}); the runner needs the rights "
            "to read the engine's data directory"
        ) from error
    try:
        pieces = reader.read()
    except KohakuRiverError as error:
        raise NodeFault(str(error)) from error
    finally:
        reader.close()
    return b"".join(pieces.stdout + pieces.stderr)
