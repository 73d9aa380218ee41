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
from kohakuriver.dockerapi.images import inspect_image, load_stream, remove_image, tag_image
from kohakuriver.runner.engines.docker.sandboxes.image import REPOSITORY
from support.engines.labs import DockerLab, abandon, docker_lab, ignore, until
from support.engines.static_images import chunks, remove_container, tree

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path) as made:
        yield made


async def load(api: DockerApi, made_at: datetime) -> str:
    """Give the engine an image that was made then, with a content of its own; returns its id."""
    layer = tree({"sleep": uuid.uuid4().bytes})
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": made_at.isoformat().replace("+00:00", "Z"),
        "config": {"Cmd": ["/sleep"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": None, "Layers": ["layer.tar"]}]
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
    (image_id,) = await load_stream(api, chunks(buffer.getvalue()), ignore)
    return image_id


async def call_it_one_of_sandboxes(api: DockerApi, image_id: str) -> None:
    await tag_image(api, image_id, REPOSITORY, image_id.removeprefix("sha256:")[:16])


async def test_old_images_that_no_container_uses_go(lab: DockerLab) -> None:
    """Other tests' runners remove them as well, so one that is to stay is in use before it has its name."""
    now, name = datetime.now(UTC), f"{lab.node}-user"
    left, used = [await load(lab.api, now - timedelta(days=2)) for _ in range(2)]
    young = await load(lab.api, now)
    try:
        await lab.api.create_container(name, {"Image": used})
        for image_id in (left, used, young):
            await call_it_one_of_sandboxes(lab.api, image_id)
        await abandon(lab.engine)
        lab.engine = lab.new_engine()
        await lab.engine.open()

        async def is_gone() -> bool:
            return await inspect_image(lab.api, left) is None

        await until(is_gone)
        for kept in (used, young):
            facts = await inspect_image(lab.api, kept)
            assert facts is not None
            assert facts.tags
    finally:
        await remove_container(lab.api, name)
        for image_id in (left, used, young):
            await remove_image(lab.api, image_id)
