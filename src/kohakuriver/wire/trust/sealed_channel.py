"""A `Channel` of sealed messages over a transport that carries bytes; the same code at both ends."""

import asyncio
from typing import Protocol

from kohakuriver.models.errors import KohakuRiverError, Unauthenticated, Unavailable
from kohakuriver.wire.channel import MAX_MESSAGE_BYTES
from kohakuriver.wire.trust.identity import LinkKeys, Side
from kohakuriver.wire.trust.sealed import Kind, Seals, new_challenge, read_stream_end


class Transport(Protocol):
    """What carries whole messages of bytes, in order; a WebSocket of either library."""

    async def send(self, data: bytes) -> None:
        """Raises Unavailable once the other end is gone."""

    async def receive(self) -> bytes | None:
        """Return the next message, None when there will be no more."""

    async def close(self) -> None: ...


class SealedChannel:
    """See `wire.channel`. Make one with `open_as_host` or `accept_as_runner`."""

    def __init__(self, transport: Transport, seals: Seals) -> None:
        self._transport = transport
        self._seals = seals
        self._sending = asyncio.Lock()
        self._said_end = False  # nothing more can be sent
        self._over = False

    async def send(self, message: str | bytes) -> None:
        kind, content = (Kind.TEXT, message.encode()) if isinstance(message, str) else (Kind.DATA, message)
        if len(content) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(content)} bytes must be sent in pieces")
        async with self._sending:
            if self._said_end:
                raise Unavailable("the stream was closed at this end")
            try:
                await self._transport.send(self._seals.seal(kind, content))
            except BaseException:
                # Whether it went out is not known, so no later message could be told from a forged one.
                self._said_end = True
                raise

    async def receive(self) -> str | bytes | None:
        while not self._over:
            sealed = await self._transport.receive()
            if sealed is None:
                self._over = True
                raise Unavailable("the connection between host and runner broke")
            opened = self._seals.open(sealed)
            if opened.kind is Kind.DATA:
                return opened.content
            if opened.kind is Kind.TEXT:
                return opened.content.decode("utf-8", "replace")
            if opened.kind is Kind.END:
                self._over = True
                if (error := read_stream_end(opened).error) is not None:
                    raise error
        return None

    async def close(self, error: KohakuRiverError | None = None) -> None:
        async with self._sending:
            if not self._said_end:
                self._said_end = True
                try:
                    await self._transport.send(self._seals.end(error))
                except Unavailable:
                    self._over = True  # nobody is there to be told
        await self._transport.close()

    async def expect_hello(self) -> None:
        """Raise Unauthenticated unless the other end is alive and has the keys, now."""
        sealed = await self._transport.receive()
        if sealed is None or self._seals.open(sealed).kind is not Kind.HELLO:
            raise Unauthenticated("the stream did not begin as it must")

    async def say_hello(self) -> None:
        async with self._sending:
            await self._transport.send(self._seals.seal(Kind.HELLO))


async def open_as_host(transport: Transport, keys: LinkKeys, credential: str) -> SealedChannel:
    """Begin a stream whose request the runner has let in; raises Unavailable or Unauthenticated."""
    challenge = await transport.receive()
    if challenge is None:
        raise Unavailable("the runner closed the stream at once")
    channel = SealedChannel(transport, Seals(keys, Side.HOST, credential, challenge))
    await channel.say_hello()
    return channel


async def accept_as_runner(transport: Transport, keys: LinkKeys, credential: str) -> SealedChannel:
    """Begin a stream at the runner's end; the request's signature has been verified."""
    challenge = new_challenge()
    await transport.send(challenge)
    channel = SealedChannel(transport, Seals(keys, Side.NODE, credential, challenge))
    await channel.expect_hello()
    return channel
