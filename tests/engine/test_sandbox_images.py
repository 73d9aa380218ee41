"""Images of sandboxes of earlier contents go when a runner starts, unless somebody may need them."""

import hashlib
import io
import json
import tarfile
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import inspect_image, load_stream, remove_image
from kohakuriver.runner.engines.docker.sandboxes.image import REPOSITORY, remove_old_images
from support.engines.labs import DockerLab, abandon, docker_lab, ignore, until
from support.engines.static_images import chunks, remove_container, tree

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path) as made:
        yield made


async def load(api: DockerApi, made_at: datetime) -> str:
    """Give the engine an image of sandboxes that was made then, with a content of its own."""
    reference = f"{REPOSITORY}:{uuid.uuid4().hex[:16]}"
    layer = tree({"sleep": reference.encode()})
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": made_at.isoformat().replace("+00:00", "Z"),
        "config": {"Cmd": ["/sleep"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in (
            ("manifest.json", json.dumps(manifest).encode()),
            ("config.json", json.dumps(config).encode()),
            ("layer.tar", layer),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    await load_stream(api, chunks(buffer.getvalue()), ignore)
    return reference


async def test_old_images_that_no_container_uses_go(lab: DockerLab) -> None:
    now = datetime.now(UTC)
    name = f"{lab.node}-user"
    left, used = [await load(lab.api, now - timedelta(days=2)) for _ in range(2)]
    young = await load(lab.api, now)
    try:
        await lab.api.create_container(name, {"Image": used})
        await abandon(lab.engine)
        lab.engine = lab.new_engine()
        await lab.engine.open()

        async def is_gone() -> bool:
            return await inspect_image(lab.api, left) is None

        await until(is_gone)
        for kept in (used, young):
            assert await inspect_image(lab.api, kept) is not None
    finally:
        await remove_container(lab.api, name)
        for reference in (left, used, young):
            await remove_image(lab.api, reference)


async def test_the_present_image_stays_however_old_it_is(lab: DockerLab) -> None:
    """The engine keeps the time of its making, which for a node without upgrades is long ago."""
    present = await load(lab.api, datetime.now(UTC) - timedelta(days=900))
    try:
        await remove_old_images(lab.api, present)
        assert await inspect_image(lab.api, present) is not None
    finally:
        await remove_image(lab.api, present)
