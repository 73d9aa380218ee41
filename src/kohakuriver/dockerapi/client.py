"""One connection pool to a Docker engine (API 1.41 or newer), with this project's errors.

aiodocker does the calls that fit its interface; what must be streamed byte for byte (logs, tarballs) goes
over `stream`, on the same session. Rules: no timeout is hidden here, callers set theirs; every engine error
leaves as NotFound, Conflict, EngineFault or Unavailable with the engine's own sentence in it.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiodocker
import aiohttp

from kohakuriver.models.errors import Conflict, EngineFault, KohakuRiverError, NotFound, Unavailable

MIN_API_VERSION = (1, 41)
_SOCKETS = ("/run/docker.sock", "/var/run/docker.sock")
ANSWER_SECONDS = 30.0
_ERROR_CLASSES: dict[int, type[KohakuRiverError]] = {404: NotFound, 409: Conflict}


def docker_url() -> str:
    """Address of the engine: `DOCKER_HOST`, else the first of the usual sockets that exists."""
    configured = os.environ.get("DOCKER_HOST", "")
    if configured:
        return configured
    found = next((path for path in _SOCKETS if Path(path).is_socket()), _SOCKETS[0])
    return f"unix://{found}"


class DockerApi:
    """Open with `await DockerApi.connect()`, close with `close`. Safe for any number of concurrent calls."""

    def __init__(self, client: aiodocker.Docker, url: str) -> None:
        self.client = client
        self.url = url
        self.api_version = (0, 0)

    @classmethod
    async def connect(cls, url: str | None = None) -> "DockerApi":
        """Connect and agree on a version; raises Unavailable when no usable engine answers."""
        url = url or docker_url()
        # The pool is unbounded: every running workload holds two long-lived requests.
        connector: aiohttp.BaseConnector = (
            aiohttp.UnixConnector(url.removeprefix("unix://"), limit=0)
            if url.startswith("unix://")
            else aiohttp.TCPConnector(limit=0)
        )
        session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(), trust_env=False)
        base = "unix://localhost" if url.startswith("unix://") else url
        api = cls(aiodocker.Docker(url=base, connector=connector, session=session), url)
        try:
            async with asyncio.timeout(10):
                await api._negotiate()
        except TimeoutError as error:
            await api.close()
            raise Unavailable(f"the Docker engine at {url} does not answer; is it hanging?") from error
        except BaseException:
            await api.close()
            raise
        return api

    async def _negotiate(self) -> None:
        with mapped_errors(self.url):
            version = await self.client.version()
        self.api_version = _parse_version(version["ApiVersion"])
        if self.api_version < MIN_API_VERSION:
            raise Unavailable(
                f"the Docker engine at {self.url} speaks API {version['ApiVersion']}; 1.41 or newer is needed"
            )

    async def close(self) -> None:
        await self.client.close()
        await self.client.session.close()

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, *, params: dict[str, str] | None = None, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make a request whose body or answer is streamed; `path` follows the version, e.g. `images/load`."""
        major, minor = self.api_version
        base = self.client.docker_host.replace("unix://", "http://").replace("tcp://", "http://")
        with mapped_errors(self.url):
            async with self.client.session.request(
                method, f"{base}/v{major}.{minor}/{path}", params=params, **options
            ) as response:
                if response.status >= 400:
                    raise _error_of(response.status, await _message_of(response))
                yield response

    async def json(
        self, method: str, path: str, *, params: dict[str, str] | None = None, **options: Any
    ) -> Any:
        """Make a request and read its JSON answer (None for an empty one)."""
        async with self.stream(method, path, params=params, **options) as response:
            body = await response.read()
            return await response.json(content_type=None) if body else None

    async def create_container(self, name: str, body: Mapping[str, Any]) -> str:
        """Make a container and return its id.

        The engine goes on with it when its client leaves, and until it has done so shows nothing under that
        name. So a caller that is cancelled leaves with the engine's answer, and what it finds then is all
        there is to clear; an engine that hangs is waited for half a minute.
        """
        call = asyncio.ensure_future(
            self.json("POST", "containers/create", params={"name": name}, json=dict(body))
        )
        try:
            return str((await asyncio.shield(call))["Id"])
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await asyncio.gather(call, return_exceptions=True)
            raise


class mapped_errors:
    """Context in which errors of the engine and of the connection become ours."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, aiodocker.DockerError):
            raise _error_of(error.status, error.message) from error
        if isinstance(error, (aiohttp.ClientError, OSError)) and not isinstance(error, TimeoutError):
            raise Unavailable(
                f"the Docker engine at {self._url} does not answer ({error}); check that it runs"
            ) from error


def engine_error(status: int, body: bytes) -> KohakuRiverError:
    """The error that an answer of the engine means, for who read it without the help of this module."""
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        message = f"the Docker engine answered {status}"
    return _error_of(status, message)


def _error_of(status: int, message: str) -> KohakuRiverError:
    if status == 900:  # aiodocker's own number for a connection that could not be made
        return Unavailable(f"the Docker engine does not answer: {message}")
    return _ERROR_CLASSES.get(status, EngineFault)(message)


async def _message_of(response: aiohttp.ClientResponse) -> str:
    try:
        return str((await response.json(content_type=None))["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"the Docker engine answered {response.status}"


def _parse_version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
