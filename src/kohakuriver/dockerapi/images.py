"""Images of an engine: what moves whole images is streamed here, in both directions, never held in memory.

Rules: an error that the engine reports inside a progress stream is an error like any other. Names given to
these functions are checked by the caller (`models.names`).
"""

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.pull_faults import pull_fault
from kohakuriver.files.sparse import SparseWriter
from kohakuriver.models.errors import Conflict, EngineFault, NotFound

CHUNK_BYTES = 1 << 20
_REPORT_EVERY_BYTES = 16 << 20
_ENVIRONMENT_PREFIX = "kohakuriver/"
_LET_IN = "Pulling from "
"""How an engine's first word begins once it has the manifest from the registry."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What inspection says about an image; `command` is its entry point and default command together.

    `digests`: names and digests of the registries that it was pulled from or pushed to.
    """

    id: str
    labels: dict[str, str]
    tags: tuple[str, ...]
    size_bytes: int
    command: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EnvironmentImage:
    """One tag of an environment on a node: `base`, or the unix time of the tarball that it came from."""

    name: str
    tag: str
    image_id: str
    size_bytes: int


async def inspect_image(api: DockerApi, reference: str) -> ImageFacts | None:
    """Return what the engine knows of an image, or None if it has none of that name or id."""
    try:
        found = await api.json("GET", f"images/{quote(reference, safe='/:@')}/json")
    except NotFound:
        return None
    config = found.get("Config") or {}
    command = (config.get("Entrypoint") or []) + (config.get("Cmd") or [])
    return ImageFacts(
        id=found["Id"],
        labels=config.get("Labels") or {},
        tags=tuple(found.get("RepoTags") or ()),
        size_bytes=found.get("Size", 0),
        command=tuple(command),
        digests=tuple(found.get("RepoDigests") or ()),
    )


async def list_environment_images(api: DockerApi) -> list[EnvironmentImage]:
    """List the tags of all environments that the engine holds, by name and tag.

    Other images of ours have tags of another form.
    """
    filters = json.dumps({"reference": [f"{_ENVIRONMENT_PREFIX}*"]})
    rows = await api.json("GET", "images/json", params={"filters": filters})
    images = []
    for row in rows:
        for reference in row.get("RepoTags") or ():
            name, _, tag = reference.removeprefix(_ENVIRONMENT_PREFIX).rpartition(":")
            if tag == "base" or tag.isdecimal():
                images.append(EnvironmentImage(name, tag, row["Id"], row.get("Size", 0)))
    return sorted(images, key=lambda image: (image.name, image.tag))


async def tag_image(api: DockerApi, image: str, repository: str, tag: str) -> None:
    """Point `repository:tag` at the image; one that pointed elsewhere moves."""
    await api.json("POST", f"images/{quote(image, safe='/:@')}/tag", params={"repo": repository, "tag": tag})


async def move_tag(api: DockerApi, image: str, repository: str, tag: str) -> None:
    """Point `repository:tag` at the image; one that only this tag held goes, unless containers use it."""
    before = await inspect_image(api, f"{repository}:{tag}")
    await tag_image(api, image, repository, tag)
    left = await inspect_image(api, before.id) if before else None
    if left is not None and not left.tags:
        with contextlib.suppress(Conflict):
            await remove_image(api, left.id)


async def remove_image(api: DockerApi, reference: str, *, force: bool = False) -> None:
    """Remove a tag, and the image with its last tag; nothing there is no error.

    `force` removes a tag also where containers use the image, which then stays without that tag.
    """
    try:
        await api.json(
            "DELETE", f"images/{quote(reference, safe='/:@')}", params={"force": str(force).lower()}
        )
    except NotFound:
        return


async def commit_container(
    api: DockerApi, container: str, config: dict[str, Any] | None = None, comment: str = ""
) -> str:
    """Make an untagged image of a container's file system; return its id.

    A running container is frozen while its changes are read, and no longer. `config` is the engine's image
    configuration; what it leaves out is the container's. `comment` stands in the image's history.
    """
    params = {"container": container, "pause": "true", "comment": comment}
    answer = await api.json("POST", "commit", params=params, json=config or {})
    return str(answer["Id"])


async def load_stream(api: DockerApi, content: AsyncIterator[bytes], on_progress: Progress) -> list[str]:
    """Send an image archive to the engine; return references or ids of what it loaded, in its words."""
    loaded: list[str] = []

    def take(message: dict[str, Any]) -> None:
        label, _, reference = str(message.get("stream", "")).strip().partition(": ")
        if label in ("Loaded image", "Loaded image ID") and reference:
            loaded.append(reference)

    counted = _CountedStream(content, on_progress, "loaded")
    headers = {"Content-Type": "application/x-tar"}
    await counted.guard(
        _read_messages(api, "images/load", {"quiet": "1"}, take, data=aiter(counted), headers=headers)
    )
    return loaded


async def import_tree(
    api: DockerApi,
    content: AsyncIterator[bytes],
    changes: tuple[str, ...],
    on_progress: Progress,
    comment: str = "",
) -> str:
    """Make an untagged image of a root file system's tar archive; return its id.

    `changes` are Dockerfile lines (`CMD [...]`). `comment` stands in the image's history.
    """
    found: list[str] = []

    def take(message: dict[str, Any]) -> None:
        status = str(message.get("status", ""))
        if status.startswith("sha256:"):
            found.append(status)

    counted = _CountedStream(content, on_progress, "imported")
    path = "images/create?" + urlencode([("changes", change) for change in changes])
    headers = {"Content-Type": "application/x-tar"}
    params = {"fromSrc": "-", "message": comment}
    await counted.guard(_read_messages(api, path, params, take, data=aiter(counted), headers=headers))
    if not found:
        raise EngineFault("the engine took a file system and made no image of it")
    return found[-1]


async def save_image(
    api: DockerApi, references: list[str], path: Path, on_progress: Progress | None = None
) -> int:
    """Write an archive of the images to a new file, safe on disk on return; return its size.

    The file is locked while it is written, which tells a live one from one that a crash left. A file that
    is there already is an error; after any other error the new one is left to the caller.
    """
    query = urlencode([("names", reference) for reference in references])
    file = await asyncio.to_thread(_create, path)
    try:
        size = await _save(api, query, file, on_progress)
        await asyncio.to_thread(os.fsync, file)
    finally:
        await asyncio.shield(asyncio.to_thread(os.close, file))
    return size


async def pull_image(
    api: DockerApi,
    reference: str,
    on_progress: Progress,
    on_activity: Callable[[], None] | None = None,
    auth: str | None = None,
) -> None:
    """Fetch an image from its registry. A reference without a tag or digest means `latest`.

    `on_activity` is called with each sign of life, so that a caller can tell a slow pull from a dead one.
    `auth`: a credential as the engine takes it (`registry_auth`).

    Raises what `pull_faults` makes of the engine's error.
    """
    received: dict[str, int] = {}
    reported = 0
    has_begun = False

    def take(message: dict[str, Any]) -> None:
        nonlocal reported, has_begun
        if on_activity:
            on_activity()
        has_begun = has_begun or str(message.get("status")).startswith(_LET_IN)
        detail = message.get("progressDetail") or {}
        if message.get("status") == "Downloading" and "current" in detail:
            received[str(message.get("id"))] = detail["current"]
        total = sum(received.values())
        if total - reported >= _REPORT_EVERY_BYTES:
            reported = total
            on_progress(f"pulling {reference}: {total >> 20} MB so far")

    headers = {} if auth is None else {"X-Registry-Auth": auth}
    try:
        await _read_messages(api, "images/create", _pull_parameters(reference), take, headers=headers)
    except (EngineFault, NotFound) as error:
        # Without the engine's own error, which may quote secrets.
        raise pull_fault(error, reference, auth, has_begun=has_begun) from None


async def file_chunks(path: Path) -> AsyncIterator[bytes]:
    """The bytes of a file, read in a thread."""
    file = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while chunk := await asyncio.to_thread(os.read, file, CHUNK_BYTES):
            yield chunk
    finally:
        os.close(file)


@dataclass(slots=True)
class _CountedStream:
    """Passes chunks on and reports how much went by; keeps the source's error, which aiohttp would hide."""

    content: AsyncIterator[bytes]
    on_progress: Progress
    verb: str
    _sent: int = 0
    _failure: list[Exception] = field(default_factory=list)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        reported = 0
        try:
            async for chunk in self.content:
                yield chunk
                self._sent += len(chunk)
                if self._sent - reported >= _REPORT_EVERY_BYTES:
                    reported = self._sent
                    self.on_progress(f"{self._sent >> 20} MB {self.verb} so far")
        except Exception as error:
            self._failure.append(error)
            raise

    async def guard(self, work: Awaitable[None]) -> None:
        try:
            await work
        finally:
            if self._failure:
                raise self._failure[0]


async def _read_messages(
    api: DockerApi, path: str, params: dict[str, str], take: Callable[[dict[str, Any]], None], **options: Any
) -> None:
    """Follow a progress stream to its end; an error message in it is raised."""
    async with api.stream("POST", path, params=params, **options) as response:
        async for message in _messages(response.content):
            if "error" in message:
                raise EngineFault(str(message["error"]))
            take(message)


async def _messages(content: aiohttp.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """JSON objects, one a line; a line may be of any length."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield json.loads(line)
    if rest.strip():
        yield json.loads(rest)


async def _save(api: DockerApi, query: str, file: int, on_progress: Progress | None) -> int:
    size = reported = 0
    failure: OSError | None = None
    writer = SparseWriter(file)
    async with api.stream("GET", f"images/get?{query}") as response:
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            try:
                await asyncio.to_thread(writer.write, chunk)
            except OSError as error:  # of our disk; it must not look like one of the engine's connection
                failure = error
                break
            size += len(chunk)
            if on_progress and size - reported >= _REPORT_EVERY_BYTES:
                reported = size
                on_progress(f"{size >> 20} MB written so far")
    if failure is not None:
        raise failure
    await asyncio.to_thread(writer.finish)
    return size


def _create(path: Path) -> int:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def _pull_parameters(reference: str) -> dict[str, str]:
    name, at, digest = reference.partition("@")
    if at:
        return {"fromImage": name, "tag": digest}
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return {"fromImage": name, "tag": "latest"}
    return {"fromImage": repository, "tag": tag}
