"""A runner proves its engine with a container whose output it reads back, and says what does not work."""

import asyncio
import json
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.runner.engines.contract.faults import NodeFault
from kohakuriver.runner.engines.docker import canary as canary_module
from kohakuriver.runner.engines.docker.canary import NAME, Canary
from kohakuriver.runner.engines.docker.labels import Owner
from kohakuriver.runner.engines.docker.sandboxes.image import (
    ensure_sandbox_image,
    find_pause_binary,
    image_tar,
)
from kohakuriver.runner.engines.docker.traits import read_traits

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]


@pytest.fixture
async def api() -> AsyncIterator[DockerApi]:
    opened = await DockerApi.connect()
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture
def node() -> str:
    return f"kr-canary-{uuid.uuid4().hex[:8]}"


async def names(api: DockerApi, node: str) -> list[str]:
    filters = json.dumps({"name": [f"{NAME}{node}"]})
    return [
        name
        for row in await api.json("GET", "containers/json", params={"all": "1", "filters": filters})
        for name in row["Names"]
    ]


async def test_an_engine_that_works_is_proved_and_nothing_is_left(
    api: DockerApi, node: str, tmp_path: Path
) -> None:
    _, root = await read_traits(api)
    canary = Canary(api, Owner(node), Mount(str(tmp_path), "/local_temp"))
    await canary.prove(root)
    # What a runner left that was killed is in nobody's way.
    left = ["docker", "create", "--name", f"{NAME}{node}", "--entrypoint", "/sleep"]
    image = await ensure_sandbox_image(api, image_tar(find_pause_binary().read_bytes()))
    await asyncio.to_thread(subprocess.run, [*left, image], check=True, capture_output=True)
    await canary.prove(root)
    assert await names(api, node) == []


async def test_data_of_the_engine_that_is_not_to_be_seen_is_found_out(
    api: DockerApi, node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary_module, "LOOKS", 2)
    with pytest.raises(NodeFault, match=r"engine's data is not at .*elsewhere"):
        await Canary(api, Owner(node), Mount(str(tmp_path), "/local_temp")).prove(tmp_path / "elsewhere")
    assert await names(api, node) == []


async def test_output_that_does_not_come_is_found_out(
    api: DockerApi, node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary_module, "LOOKS", 2)
    monkeypatch.setattr(canary_module, "LOG_CONFIG", {"Type": "none"})
    _, root = await read_traits(api)
    with pytest.raises(NodeFault, match="the word is not in the engine's journal"):
        await Canary(api, Owner(node), Mount(str(tmp_path), "/local_temp")).prove(root)
    assert await names(api, node) == []


async def test_a_folder_that_the_engine_does_not_see_is_found_out(
    api: DockerApi, node: str, tmp_path: Path
) -> None:
    _, root = await read_traits(api)
    with pytest.raises(NodeFault, match=r"cannot be made: .*bind source path does not exist"):
        await Canary(api, Owner(node), Mount(str(tmp_path / "none"), "/local_temp")).prove(root)
    assert await names(api, node) == []
