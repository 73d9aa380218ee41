"""Streams to runners: a signed WebSocket to where the node's registration came from, sealed from then on.

Nothing that is answered there leads elsewhere: a node must not choose what this host asks of whom.
"""

import asyncio
from collections.abc import Callable

import aiohttp

from kohakuriver.host.dispatch.runner_link import as_signed, dial_url
from kohakuriver.models.errors import Unauthenticated, Unavailable
from kohakuriver.wire.channel import MAX_MESSAGE_BYTES, Channel
from kohakuriver.wire.trust.identity import LinkKeys, Side
from kohakuriver.wire.trust.sealed_calls import MOST_TRIES, Caller
from kohakuriver.wire.trust.sealed_channel import open_as_host
from kohakuriver.wire.trust.signing import ANSWER_HEADER

_OPENING_SECONDS = 15.0
_SEAL_BYTES = 64  # room for what sealing adds

Whereabouts = Callable[[str], tuple[LinkKeys | None, tuple[str, str] | None]]
"""Of a node: the keys shared with it, and (address its registration came from, url it announced)."""


class RunnerStreams:
    """Opens streams to any node. Whoever opens one closes it; `close` ends the connections of all."""

    def __init__(self, whereabouts: Whereabouts) -> None:
        self._whereabouts = whereabouts
        self._session: aiohttp.ClientSession | None = None
        self._caller = Caller(Side.HOST)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def open(self, node: str, target: str) -> Channel:
        """Open the stream at `target` (path and query, as sent); Unavailable if the node is unreachable."""
        keys, where = self._whereabouts(node)
        if keys is None or where is None:
            raise Unavailable(f"node {node} has not registered")
        try:
            async with asyncio.timeout(_OPENING_SECONDS):
                socket, credential = await self._call(node, keys, dial_url(*where), target)
                try:
                    return await open_as_host(_Socket(socket, node), keys, credential)
                except BaseException:
                    await socket.close()
                    raise
        except TimeoutError as error:
            raise Unavailable(f"the runner of node {node} does not answer in time") from error
        except Unauthenticated as error:
            raise Unavailable(f"what answers at node {node} is not its runner") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"the runner of node {node} does not answer: {error}") from error

    async def _call(
        self, node: str, keys: LinkKeys, url: str, target: str
    ) -> tuple[aiohttp.ClientWebSocketResponse, str]:
        for _ in range(MOST_TRIES):
            call = self._caller.call(node, keys, "GET", target)
            try:
                return await self._connect(url + target, call.credential), call.credential
            except aiohttp.WSServerHandshakeError as error:
                if error.headers is None or ANSWER_HEADER not in error.headers:
                    raise
                answer = self._caller.prove(call, keys, error.status, error.headers, 0)
                if not self._caller.must_call_again(call, answer):
                    raise
        raise Unavailable(f"the runner of node {node} begins anew again and again")

    async def _connect(self, url: str, credential: str) -> aiohttp.ClientWebSocketResponse:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._session = aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                middlewares=(_stay_here,),
            )
        return await self._session.ws_connect(
            as_signed(url),
            headers={"Authorization": credential},
            compress=0,
            max_msg_size=MAX_MESSAGE_BYTES + _SEAL_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_close=5.0),
        )


async def _stay_here(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """For WebSockets the client cannot be told otherwise not to go where an answer sends it."""
    response = await handler(request)
    if 300 <= response.status < 400:
        response.close()
        raise aiohttp.ClientError("it was sent on to another address, where nobody of ours is")
    return response


class _Socket:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse, node: str) -> None:
        self._socket = socket
        self._node = node

    async def send(self, data: bytes) -> None:
        try:
            await self._socket.send_bytes(data)
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise Unavailable(f"the stream to node {self._node} broke: {error}") from error

    async def receive(self) -> bytes | None:
        message = await self._socket.receive()
        return message.data if message.type is aiohttp.WSMsgType.BINARY else None

    async def close(self) -> None:
        await self._socket.close()
