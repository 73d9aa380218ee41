"""Pulls from a registry that has bad moments, on the real engine."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from kohakuriver.dockerapi import pulling
from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import inspect_image
from kohakuriver.models.errors import KohakuRiverError
from kohakuriver.runner.engines.contract.faults import RegistryUnavailable
from kohakuriver.runner.engines.contract.spec import ImageChoice
from support.engines.image_records import ignore, node_images
from support.engines.registry import LabRegistry, lab_registry

pytest_plugins = ["support.engines.image_fixtures"]
pytestmark = [pytest.mark.anyio, pytest.mark.docker]


@pytest.fixture
def lab() -> Iterator[LabRegistry]:
    with lab_registry() as registry:
        yield registry


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "FIRST_PAUSE_SECONDS", 0.1)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_registry_that_is_busy_for_a_while_is_asked_again(
    api: DockerApi, lab: LabRegistry, environment: str, tmp_path: Path, status: int
) -> None:
    lab.put(environment, "1")
    image = f"{lab.address}/{environment}:1"
    lab.busy = [status] * 6
    said: list[str] = []
    got = await node_images(api, tmp_path).ensure(ImageChoice(registry_image=image), said.append)
    facts = await inspect_image(api, image)
    assert facts is not None
    assert got.id == facts.id
    assert any("trying again" in sentence for sentence in said)


async def test_a_registry_that_refuses_connections_is_asked_until_it_is_back(
    api: DockerApi, lab: LabRegistry, environment: str, tmp_path: Path
) -> None:
    lab.put(environment, "1")
    lab.go_away()
    refused = asyncio.Event()

    def hear(sentence: str) -> None:
        if "connection refused" in sentence:
            refused.set()

    choice = ImageChoice(registry_image=f"{lab.address}/{environment}:1")
    pull = asyncio.ensure_future(node_images(api, tmp_path).ensure(choice, hear))
    async with asyncio.timeout(30):
        await refused.wait()
    lab.come_back()
    assert (await pull).id.startswith("sha256:")


async def test_a_registry_that_stays_busy_ends_as_lost_to_the_system_in_time(
    api: DockerApi, lab: LabRegistry, environment: str, tmp_path: Path
) -> None:
    lab.always_busy = 503
    images = node_images(api, tmp_path, 1.5)
    async with asyncio.timeout(30):
        with pytest.raises(RegistryUnavailable, match=r"503.*tried \d+ times within 1\.5 seconds"):
            await images.ensure(ImageChoice(registry_image=f"{lab.address}/{environment}:1"), ignore)
    assert len(lab.asked) > 3


async def test_a_pull_that_hangs_until_the_time_is_over_tells_how_far_it_came(
    api: DockerApi, lab: LabRegistry, environment: str, tmp_path: Path
) -> None:
    lab.put(environment, "1")
    lab.gate.clear()
    images = node_images(api, tmp_path, 1.5)
    async with asyncio.timeout(30):
        with pytest.raises(RegistryUnavailable, match=r"within 1\.5 seconds.* \(at last: pulling .*\)"):
            await images.ensure(ImageChoice(registry_image=f"{lab.address}/{environment}:1"), ignore)


async def test_an_image_that_is_not_there_is_asked_for_once(
    api: DockerApi, lab: LabRegistry, environment: str, tmp_path: Path
) -> None:
    choice = ImageChoice(registry_image=f"{lab.address}/{environment}:none")
    said: list[str] = []
    with pytest.raises(KohakuRiverError, match="manifest unknown") as caught:
        await node_images(api, tmp_path).ensure(choice, said.append)
    assert not isinstance(caught.value, RegistryUnavailable)
    assert not any("trying again" in sentence for sentence in said)
