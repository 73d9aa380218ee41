"""Fixtures for tests that handle images on the machine's own engine; what they make is removed afterwards.

Use with `pytest_plugins = ["support.image_fixtures"]` in a test module.
"""

import contextlib
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import inspect_image, remove_image, save_image
from kohakuriver.models.errors import Conflict, Unavailable
from kohakuriver.runner.images.environment_images import EnvironmentImages
from support.image_records import MakeTarball, node_images
from support.lacking import missing
from support.static_images import busybox_tree, import_bytes, remove_container, tree


@pytest.fixture
async def api(anyio_backend: str) -> AsyncIterator[DockerApi]:
    try:
        connected = await DockerApi.connect()
    except Unavailable as error:
        missing(str(error))
    yield connected
    await connected.close()


@pytest.fixture
async def environment(api: DockerApi) -> AsyncIterator[str]:
    """A name that nobody else uses; its images and container go with the test."""
    name = f"t{uuid.uuid4().hex[:10]}"
    yield name
    with contextlib.suppress(Conflict):
        await remove_container(api, f"kohakuriver-env-{name}")
    rows = await api.json("GET", "images/json")
    for reference in (tag for row in rows for tag in row.get("RepoTags") or () if name in tag):
        await remove_image(api, reference, force=True)


@pytest.fixture
async def busybox(api: DockerApi, environment: str) -> str:
    """Reference of a local busybox image that belongs to this test."""
    reference = f"{environment}-busybox:1"
    await import_bytes(api, busybox_tree(), reference, 'CMD ["sh"]')
    return reference


@pytest.fixture
async def images(api: DockerApi, tmp_path: Path) -> AsyncIterator[EnvironmentImages]:
    opened = node_images(api, tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
def make_tarball(api: DockerApi, environment: str, tmp_path: Path) -> MakeTarball:
    """Save an image with the given content as a version of the environment; the image itself is removed."""

    async def make(version: int, content: bytes = b"one", references: int = 1) -> tuple[Path, str]:
        made = [f"{environment}-made-{number}:v{version}" for number in range(references)]
        for number, reference in enumerate(made):
            await import_bytes(api, tree({"marker": content + bytes([48 + number])}), reference)
        facts = await inspect_image(api, made[0])
        assert facts is not None
        path = tmp_path / f"{environment}-{version}.tar"
        await save_image(api, made, path)
        for reference in made:
            await remove_image(api, reference)
        return path, facts.id

    return make


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """`127.0.0.1:port` of an empty registry, which Docker takes without certificates."""
    program = shutil.which("docker-registry")
    if program is None:
        missing("docker-registry is not installed (Debian package docker-registry)")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{address}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{tmp_path}/registry'}}}}\n"
    )
    process = subprocess.Popen(
        [str(program), "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for_port(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def _wait_for_port(address: str, process: "subprocess.Popen[bytes]") -> None:
    host, port = address.split(":")
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return
        assert process.poll() is None, "the registry ended"
        assert time.monotonic() < deadline, "the registry does not answer"
        time.sleep(0.05)
