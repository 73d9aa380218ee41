"""Calls of an engine whose connection becomes a stream of bytes in both directions (exec, attach)."""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

from kohakuriver.dockerapi.client import DockerApi, engine_error
from kohakuriver.models.errors import Unavailable

_PIECE_BYTES = 65536


async def upgraded(
    api: DockerApi, path: str, body: bytes = b""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Make the call; `path` follows the version. Raises what the engine refuses with, or Unavailable.

    Its answer is read up to the end of its head. The connection is the caller's, who closes it.
    """
    try:
        reader, writer = await _connect(api.url)
        try:
            await _call(reader, writer, _request_head(api, path, len(body)) + body)
        except BaseException:
            writer.close()
            raise
    except (OSError, EOFError, ValueError, LookupError) as error:
        raise Unavailable(f"the Docker engine at {api.url} does not answer ({error})") from error
    return reader, writer


async def _call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.write(request)
    await writer.drain()
    status, headers = await _read_head(reader)
    if status >= 400:
        length = min(int(headers["content-length"]), _PIECE_BYTES)
        raise engine_error(status, await reader.readexactly(length))


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if url.startswith("unix://"):
        return await asyncio.open_unix_connection(url.removeprefix("unix://"), limit=_PIECE_BYTES)
    place = urlsplit(url)
    return await asyncio.open_connection(place.hostname, place.port or 2375, limit=_PIECE_BYTES)


def _request_head(api: DockerApi, path: str, length: int) -> bytes:
    major, minor = api.api_version
    return (
        f"POST /v{major}.{minor}/{path} HTTP/1.1\r\nHost: docker\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n"
        "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    ).encode()


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, Mapping[str, str]]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    return int(first.split(" ")[1]), headers
