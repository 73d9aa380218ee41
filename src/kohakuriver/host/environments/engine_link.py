"""The host's connection to a Docker engine, made when it is first needed: a host may do without one."""

import asyncio

from kohakuriver.dockerapi.client import DockerApi


class EngineLink:
    """Connects once; later outages of the engine show as errors of single calls and pass by themselves."""

    def __init__(self, url: str | None = None) -> None:
        """`url` None: the engine that `DOCKER_HOST` or the usual socket names."""
        self._url = url
        self._api: DockerApi | None = None
        self._connecting = asyncio.Lock()

    async def get(self) -> DockerApi:
        """Return the connection; raises Unavailable when no usable engine answers."""
        async with self._connecting:
            if self._api is None:
                self._api = await DockerApi.connect(self._url)
            return self._api

    async def close(self) -> None:
        if self._api is not None:
            await self._api.close()
            self._api = None
