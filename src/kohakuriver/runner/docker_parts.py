"""The Docker engine of this node with what belongs to it: connected late, since the daemon may be down."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.names import LABEL_MANAGED, LABEL_TASK_ID
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.runner.engines.contract.engine import Engine
from kohakuriver.runner.engines.contract.spec import ImageChoice
from kohakuriver.runner.engines.docker.canary import Canary
from kohakuriver.runner.engines.docker.docker_engine import DockerEngine
from kohakuriver.runner.engines.docker.labels import Owner
from kohakuriver.runner.engines.docker.settings import DockerEngineSettings
from kohakuriver.runner.engines.docker.user_mapping import UserMapping
from kohakuriver.runner.images.environment_images import EnvironmentImages
from kohakuriver.runner.images.pulled_images import PulledImages
from kohakuriver.runner.images.registry_images import RegistryImages
from kohakuriver.runner.images.registry_logins import AskHost, RegistryLogins
from kohakuriver.runner.images.unused_images import ImageNeeds, UnusedImages
from kohakuriver.runner.images.used_images import NotedImages, UsedImages
from kohakuriver.runner.tunnels.sandbox_tunnels import SandboxTunnels

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DockerPartsSettings:
    """What the parts are made with."""

    engine: DockerEngineSettings
    tarball_dir: Path
    sync_timeout_seconds: float
    canary_folder: Mount
    """A folder of the node as tasks see it, to be given to a container that proves the engine."""
    local_images: tuple[str, ...] = ()


class DockerParts:
    """Call `open` until it succeeds, then `close` once."""

    def __init__(
        self,
        settings: DockerPartsSettings,
        ask_host: AskHost,
        tunnels: SandboxTunnels,
        api: DockerApi | None = None,
    ) -> None:
        """`ask_host`: for the cluster's credential of a registry. `api`: a connection that is there already,
        for as long as `open` has made none.
        """
        self._settings = settings
        self._logins = RegistryLogins(ask_host)
        self._tunnels = tunnels
        self._api = api
        self._images: EnvironmentImages | None = None
        self._engine: DockerEngine | None = None
        self._used = UsedImages(settings.engine.state_dir / "used_images.json")
        self._canary: Canary | None = None
        self._mapping = UserMapping()
        self._mapping_notices: list[str] = []

    async def open(self, cluster_ids: tuple[str, ...]) -> Engine:
        """Connect and prepare the engine; Unavailable while it does not answer, InvalidInput for settings.

        `cluster_ids`: of the cluster whose containers are ours.
        """
        api = await DockerApi.connect()
        images = self._images_of(api)
        settings = replace(self._settings.engine, cluster_ids=cluster_ids)
        engine = DockerEngine(api, settings, NotedImages(images, self._used), self._tunnels)
        try:
            await engine.open()
            self._mapping = UserMapping.of(await api.json("GET", "info"))
            await self._look_at_mapping()
        except BaseException:
            await asyncio.shield(_close_all(engine, images, api))
            raise
        self._api, self._images, self._engine = api, images, engine
        owner = Owner(self._settings.engine.node_name, cluster_ids)
        self._canary = Canary(api, owner, self._settings.canary_folder)
        return engine

    def _images_of(self, api: DockerApi) -> EnvironmentImages:
        settings = self._settings
        pulled = PulledImages(settings.engine.state_dir / "pulled_images.json")
        seconds = settings.sync_timeout_seconds
        registry_images = RegistryImages(api, pulled, self._logins, seconds, settings.local_images)
        return EnvironmentImages(api, settings.tarball_dir, seconds, registry_images)

    async def close(self) -> None:
        if self._engine is not None and self._images is not None and self._api is not None:
            await _close_all(self._engine, self._images, self._api)

    async def prove(self) -> None:
        """Print a text of ours and read it back; raises what keeps tasks from running, or Unavailable."""
        if self._engine is None or self._canary is None:
            raise Unavailable("the Docker engine of this node is not open yet")
        await self._look_at_mapping()
        await self._canary.prove(self._engine.data_root)

    async def _look_at_mapping(self) -> None:
        """Storage may be slow to answer, so that it is not asked with each heartbeat."""
        folders = self._settings.engine.guarded_folders
        notices = await asyncio.to_thread(self._mapping.notices, folders)
        for notice in notices:
            if notice not in self._mapping_notices:
                _log.warning("engine_maps_users", notice=notice)
        self._mapping_notices = notices

    def data_root(self) -> Path | None:
        """Where the engine keeps images and containers; None until it is open."""
        return self._engine.data_root if self._engine is not None else None

    def notices(self) -> list[str]:
        return [*self._engine.notices(), *self._mapping_notices] if self._engine is not None else []

    async def list_images(self) -> Sequence[Any]:
        """Environments that this node has, with the versions of their images."""
        if self._images is None:
            raise Unavailable("the Docker engine of this node does not answer")
        return await self._images.list()

    async def sweep_images(self, days: int, needs: ImageNeeds, *, removes: bool) -> tuple[int, int]:
        """See `UnusedImages.sweep`."""
        settings = self._settings
        unused = UnusedImages(self._ready(), self._used, settings.tarball_dir, settings.local_images)
        return await unused.sweep(days, needs, removes=removes)

    async def oldest_workload(self) -> float | None:
        """When the oldest container of a workload that is there was made (unix time); None: there is none."""
        filters = json.dumps({"label": [f"{LABEL_MANAGED}=true", LABEL_TASK_ID]})
        rows = await self._ready().json("GET", "containers/json", params={"all": "1", "filters": filters})
        return min((float(row["Created"]) for row in rows), default=None)

    def _ready(self) -> DockerApi:
        if self._api is None:
            raise Unavailable("the Docker engine of this node does not answer")
        return self._api

    async def sync_environment(self, name: str) -> None:
        """Bring the current version of an environment onto this node."""
        if self._engine is None:
            raise Unavailable("the Docker engine of this node does not answer")
        log = _log.bind(environment=name)
        await self._engine.prefetch(
            ImageChoice(environment=name), lambda text: log.debug("image_progress", progress=text)
        )

    async def remove_environment(self, name: str) -> None:
        """Take away the image of an environment that was deleted."""
        if self._images is None:
            raise Unavailable("the Docker engine of this node does not answer")
        await self._images.remove(name)


async def _close_all(engine: DockerEngine, images: EnvironmentImages, api: DockerApi) -> None:
    try:
        await engine.close()
        await images.close()
    finally:
        await api.close()
