"""Fixtures for tests of the host's environments; use as `pytest_plugins`, like those of images."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.host.environments.engine_link import EngineLink
from kohakuriver.host.environments.environment_settings import EnvironmentSettings
from kohakuriver.host.environments.service import EnvironmentService
from kohakuriver.models.spec.mounts import Mount

pytest_plugins = ["support.engines.image_fixtures"]


@pytest.fixture
def settings(tmp_path: Path) -> EnvironmentSettings:
    (tmp_path / "shared_data").mkdir()
    (tmp_path / "extra").mkdir()
    return EnvironmentSettings(
        tar_dir=tmp_path / "tars",
        shared_data_dir=tmp_path / "shared_data",
        additional_mounts=(Mount(str(tmp_path / "extra"), "/extra", read_only=True),),
    )


@pytest.fixture
async def service(api: DockerApi, settings: EnvironmentSettings) -> AsyncIterator[EnvironmentService]:
    link = EngineLink()
    yield EnvironmentService(settings, link)
    await link.close()


@pytest.fixture
async def container(service: EnvironmentService, environment: str, busybox: str) -> str:
    """Name of a running environment container."""
    await service.create_container(busybox, environment)
    return f"kohakuriver-env-{environment}"
