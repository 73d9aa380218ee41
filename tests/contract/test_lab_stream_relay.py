"""Streams through the lab's relay: all bytes both ways, late where the link is slow, bounded, to an end."""

import asyncio
import contextlib
import hashlib
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.lab.relay import Relay, disturb
from support.runner.scripted_host import free_port

DEADLINE_SECONDS = 60
HEAD = (
    b"GET /ws/a%2Fb?c=%20d HTTP/1.1\r\nHost: n1:8001\r\nConnection: Upgrade\r\nUPGRADE: WebSocket\r\n"
    b"Sec-WebSocket-Key: eA==\r\nAuthorization: proof  of it\r\n\r\n"
)
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
MOST_TAKEN_BYTES = 32 << 20
"""More than the relay and the kernel's buffers before and behind it hold."""


@dataclass(frozen=True)
class End:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def said(self, count: int) -> bytes:
        return await self.reader.readexactly(count)

    async def is_broken(self) -> bool:
        """Whether it ends as a connection does that breaks."""
        try:
            return not await self.reader.read()
        except ConnectionResetError:
            return True


class Place:
    """A relay with what is behind it: a peer that takes streams."""

    def __init__(self, control: Path) -> None:
        self.control = control
        self.port = free_port()
        self.heads: list[bytes] = []
        self._taken: asyncio.Queue[End] = asyncio.Queue()

    async def open(self) -> tuple[End, End]:
        """A stream that the peer has accepted: this side's end, and the peer's."""
        near = End(*await asyncio.open_connection("127.0.0.1", self.port))
        near.writer.write(HEAD)
        assert await near.said(len(ACCEPTED)) == ACCEPTED
        return near, await self._taken.get()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(ACCEPTED)
        self._taken.put_nowait(End(reader, writer))


@contextlib.asynccontextmanager
async def relayed(folder: Path, *, peer: bool = True) -> AsyncIterator[Place]:
    place, target = Place(folder / "relay.json"), free_port()
    server = await asyncio.start_server(place.take, "127.0.0.1", target) if peer else None
    serving = asyncio.create_task(
        Relay(place.control).serve([(f"127.0.0.1:{place.port}", f"127.0.0.1:{target}")])
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await _listens(place.port):
                await asyncio.sleep(0.005)
            yield place
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        if server is not None:
            server.close()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def play(folder: Path, scenario: Callable[[Place], Awaitable[None]], *, peer: bool = True) -> None:
    async def bounded() -> None:
        async with relayed(folder, peer=peer) as place:
            await scenario(place)

    asyncio.run(bounded())


def test_a_stream_begins_as_it_was_asked_for_and_each_direction_ends_by_itself(tmp_path: Path) -> None:
    async def scenario(place: Place) -> None:
        near, far = await place.open()
        assert place.heads == [HEAD]
        sent = os.urandom(3 << 20)
        near.writer.write(sent)
        near.writer.write_eof()
        assert await far.reader.read() == sent
        far.writer.write(sent[::-1])
        far.writer.write_eof()
        assert await near.reader.read() == sent[::-1]

    play(tmp_path, scenario)


@pytest.mark.parametrize("breaker", [0, 1])
def test_what_breaks_at_one_end_breaks_at_the_other(tmp_path: Path, breaker: int) -> None:
    async def scenario(place: Place) -> None:
        ends = await place.open()
        sock = ends[breaker].writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ends[breaker].writer.transport.abort()
        with pytest.raises(ConnectionResetError):
            await ends[1 - breaker].reader.read()

    play(tmp_path, scenario)


def test_a_peer_that_is_unreachable_breaks_the_stream(tmp_path: Path) -> None:
    async def scenario(place: Place) -> None:
        near = End(*await asyncio.open_connection("127.0.0.1", place.port))
        near.writer.write(HEAD)
        assert await near.is_broken()

    play(tmp_path, scenario, peer=False)


def test_a_slow_link_delays_both_directions_of_an_open_stream_until_it_is_mended(tmp_path: Path) -> None:
    async def scenario(place: Place) -> None:
        near, far = await place.open()
        disturb(place.control, delay_ms=300)
        begun = time.monotonic()
        near.writer.write(b"ask")
        assert await far.said(3) == b"ask"
        far.writer.write(b"answer")
        assert await near.said(6) == b"answer"
        # A time is asserted, since a delay is nothing else; no load makes it shorter.
        assert time.monotonic() - begun >= 0.6
        disturb(place.control, delay_ms=1000 * DEADLINE_SECONDS)
        disturb(place.control)
        near.writer.write(b"ask")
        assert await far.said(3) == b"ask"

    play(tmp_path, scenario)


def test_who_does_not_read_holds_up_who_writes_and_loses_nothing(tmp_path: Path) -> None:
    async def scenario(place: Place) -> None:
        near, far = await place.open()
        piece = os.urandom(1 << 20)
        taken = 0

        async def write() -> None:
            nonlocal taken
            for _ in range(128):
                near.writer.write(piece)
                await near.writer.drain()
                taken += len(piece)
            near.writer.write_eof()

        writing = asyncio.create_task(write())
        await _stands_still(lambda: taken)
        assert taken < MOST_TAKEN_BYTES
        digest, wanted = hashlib.sha256(), hashlib.sha256(piece * 128)
        while data := await far.reader.read(1 << 20):
            digest.update(data)
        await writing
        assert digest.digest() == wanted.digest()

    play(tmp_path, scenario)


async def _stands_still(figure: Callable[[], int]) -> None:
    """Return once it has not changed over many looks."""
    same, last = 0, figure()
    while same < 100:
        await asyncio.sleep(0.005)
        same, last = (same + 1, last) if figure() == last else (0, figure())


def test_the_end_of_the_relay_is_the_end_of_its_streams(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with relayed(tmp_path) as place:
            ends = await place.open()
            disturb(place.control, delay_ms=60_000)
            ends[0].writer.write(b"never comes")
            await ends[0].writer.drain()
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert [await end.is_broken() for end in ends] == [True, True]
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.005)

    asyncio.run(scenario())
