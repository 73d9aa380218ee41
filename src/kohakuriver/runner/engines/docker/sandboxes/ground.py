"""What sandboxes stand on: their image and the bridge network. Made when the engine is opened, and made again
when somebody cleared the engine of it (`docker system prune` takes what no container uses just then)."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import EngineFault, KohakuRiverError
from kohakuriver.runner.engines.docker.sandboxes.image import (
    ensure_sandbox_image,
    find_pause_binary,
    image_tar,
    remove_old_images,
)
from kohakuriver.runner.network.bridge_filter import BridgeFilter
from kohakuriver.runner.network.docker_network import WantedNetwork, ensure_network

_log = structlog.get_logger(__name__)


class SandboxGround:
    """One per engine. Several may prepare it at the same time. `client`: the tunnel client, or none."""

    def __init__(
        self, api: DockerApi, network: WantedNetwork, bridge_filter: BridgeFilter, client: Path | None
    ) -> None:
        self._api = api
        self._network = network
        self._client = client
        self.bridge_filter = bridge_filter
        self._preparing = asyncio.Lock()

    @property
    def network_name(self) -> str:
        return self._network.name

    @property
    def gateway(self) -> str:
        return self._network.gateway

    async def prepare(self, clear_idle: Callable[[], Awaitable[None]] | None = None) -> str:
        """Return the image's reference. `clear_idle` removes our own idle sandboxes from a network that must
        be remade; without it such a one is an error. Raises InvalidInput for settings that cannot work.
        """
        async with self._preparing:
            image = await ensure_sandbox_image(self._api, await asyncio.to_thread(self._image_content))
            bridge = await ensure_network(self._api, self._network, clear_idle or _clear_nothing)
            await self.bridge_filter.use_bridge(bridge)
            return image

    async def remove_old_images(self, present: str) -> None:
        """Have earlier versions of the image gone; what is left of them only takes room."""
        try:
            await remove_old_images(self._api, present)
        except KohakuRiverError as error:
            _log.warning("old_sandbox_images_stay", reason=str(error))

    def _image_content(self) -> bytes:
        try:
            client = None if self._client is None else self._client.read_bytes()
        except OSError as error:
            raise EngineFault(f"the tunnel client {self._client} cannot be read: {error.strerror}") from error
        return image_tar(find_pause_binary().read_bytes(), client)


async def _clear_nothing() -> None:
    """For a network that is in use, or gone."""
