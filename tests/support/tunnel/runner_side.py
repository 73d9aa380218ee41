"""A runner's side of the tunnel, for tests of the client: it proves itself, opens streams, counts bytes."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import WSCloseCode, WSMsgType, web

from kohakuriver.wire.tunnel.end import TunnelEnd
from kohakuriver.wire.tunnel.events import Connected, Ended, Event, Finished, Received, Reset
from kohakuriver.wire.tunnel.frames import MAX_FRAME_BYTES, SUBPROTOCOL, FrameType, Transport, read_header
from kohakuriver.wire.tunnel.proof import Prover, is_proof, new_nonce, proof, read_answer
from kohakuriver.wire.tunnel.table import Role, TunnelBounds

NAME = "kohakuriver-sandbox-7"
PATIENCE_SECONDS = 30.0
"""Within which whatever is waited for must come."""


class StreamLost(ConnectionError):
    """It was reset by the client, or is gone with the tunnel; the message is the sentence."""


@dataclass(eq=False)
class Channel:
    """One stream, as its user sees it. Bytes count as taken when they are read."""

    tunnel: "Tunnel"
    client_id: int
    pieces: list[bytes] = field(default_factory=list)
    is_connected: bool = False
    is_finished: bool = False
    is_ended: bool = False
    lost: str | None = None
    received_bytes: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def until_connected(self) -> "Channel":
        await self._until(lambda: self.is_connected)
        return self

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            await self._until(lambda: self.tunnel.end.room(self.client_id) > 0)
            size = min(self.tunnel.end.room(self.client_id), len(view))
            self.tunnel.end.send(self.client_id, view[:size])
            self.tunnel.wake()
            view = view[size:]

    def send_datagram(self, data: bytes) -> None:
        self.tunnel.end.send(self.client_id, data)
        self.tunnel.wake()

    def finish(self) -> None:
        self.tunnel.end.finish(self.client_id)
        self.tunnel.wake()

    def reset(self) -> None:
        self.tunnel.end.reset(self.client_id, "the user left")
        self.tunnel.wake()

    async def read(self) -> bytes:
        """Return what has come; nothing is the end."""
        await self._until(lambda: bool(self.pieces or self.is_finished))
        data = b"".join(self.pieces)
        self.pieces.clear()
        self.tunnel.end.take(self.client_id, len(data))
        self.tunnel.wake()
        return data

    async def read_exactly(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            piece = await self.read()
            assert piece, f"an end after {len(got)} of {size} bytes"
            got += piece
        return got

    async def read_all(self) -> bytes:
        got = []
        while piece := await self.read():
            got.append(piece)
        return b"".join(got)

    async def datagram(self) -> bytes:
        await self._until(lambda: bool(self.pieces))
        return self.pieces.pop(0)

    async def until_received(self, size: int) -> None:
        await self._until(lambda: self.received_bytes >= size)

    async def until_over(self) -> str | None:
        """Return the sentence of a reset, None for an end in order."""
        with contextlib.suppress(StreamLost):
            await self._until(lambda: self.is_ended)
        return self.lost

    def tell(self, event: Event) -> None:
        match event:
            case Connected():
                self.is_connected = True
            case Received(data=data):
                self.pieces.append(bytes(data))
                self.received_bytes += len(data)
            case Finished():
                self.is_finished = True
            case Ended():
                self.is_ended = True
            case Reset(sentence=sentence):
                self.lost = sentence
        self.news.set()

    async def _until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not is_so():
                if self.lost is not None:
                    raise StreamLost(self.lost)
                self.news.clear()
                await self.news.wait()


class Tunnel:
    """One WebSocket of a client that has proven itself."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.end = TunnelEnd(Role.OPENS, credit=True, bounds=TunnelBounds(streams=5000))
        self.channels: dict[int, Channel] = {}
        self.heard: list[int] = []
        """The types of frames without a stream."""
        self.is_mute = False
        """Frames are read, and none is written."""
        self.lost = asyncio.Event()
        self._socket = socket
        self._to_write = asyncio.Event()

    def open(self, port: int, transport: Transport = Transport.TCP) -> Channel:
        client_id = self.end.open(transport, port)
        assert client_id is not None
        channel = self.channels[client_id] = Channel(self, client_id)
        self.wake()
        return channel

    def wake(self) -> None:
        self._to_write.set()

    async def write_raw(self, frame: bytes) -> None:
        await self._socket.send_bytes(frame)

    async def serve(self) -> None:
        writing = asyncio.ensure_future(self._write())
        try:
            async for message in self._socket:
                if message.type is WSMsgType.BINARY:
                    self._receive(message.data)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            self.lost.set()
            for channel in self.channels.values():
                channel.tell(Reset(channel.client_id, "the tunnel is gone"))

    def _receive(self, frame: bytes) -> None:
        header = read_header(frame)
        if header.type in {FrameType.PING, FrameType.PONG}:
            self.heard.append(header.type)
        event = self.end.receive(frame)
        if event is not None:
            self.channels[event.client_id].tell(event)
        self.wake()

    async def _write(self) -> None:
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            while not self.is_mute and (written := self.end.next_frame()):
                await self._socket.send_bytes(written[1])
                if channel := self.channels.get(written[0]):
                    channel.news.set()


class RunnerSide:
    """The server. `tunnels` are those that were proven, in the order of their coming."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = secrets.token_bytes(32)
        self.own_secret = self.secret
        """What its own proof is made with; another than `secret` makes a runner that does not know it."""
        self.tunnels: list[Tunnel] = []
        self.attempts = 0
        self.answers: list[str] = []
        self.port = 0
        self._news = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[None]:
        """Serve, and cut all connections at the end as a killed process does."""
        app = web.Application()
        app.router.add_get("/ws/tunnel/{name}", self._tunnel)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
        await site.start()
        self.port = runner.addresses[0][1]
        self.write_settings()
        try:
            yield
        finally:
            await runner.cleanup()

    def write_settings(self, *, secret: bytes | None = None) -> None:
        """Leave in the folder what a runner leaves there."""
        place = json.dumps({"address": "127.0.0.1", "port": self.port, "name": NAME})
        for name, text in (("secret", (secret or self.secret).hex()), ("runner.json", place)):
            draft = self.folder / "draft"
            draft.write_text(text)
            draft.rename(self.folder / name)

    async def tunnel(self, number: int = 0) -> Tunnel:
        """Wait for the tunnel that is the `number`th to come."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._news:
            await self._news.wait_for(lambda: len(self.tunnels) > number)
        return self.tunnels[number]

    async def until_attempts(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), self._news:
            await self._news.wait_for(lambda: self.attempts >= number)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _tunnel(self, request: web.Request) -> web.StreamResponse:
        self.attempts += 1
        await self._tell()
        socket = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,), compress=False, max_msg_size=MAX_FRAME_BYTES + 1
        )
        await socket.prepare(request)
        if not await self._prove(socket):
            await socket.close(code=WSCloseCode.POLICY_VIOLATION)
            return socket
        tunnel = Tunnel(socket)
        self.tunnels.append(tunnel)
        await self._tell()
        await tunnel.serve()
        return socket

    async def _prove(self, socket: web.WebSocketResponse) -> bool:
        nonce = new_nonce()
        await socket.send_json({"nonce": nonce})
        text = await socket.receive_str()
        self.answers.append(text)
        answer = read_answer(text)
        if not is_proof(answer.proof, proof(self.secret, Prover.CLIENT, NAME, nonce, answer.nonce)):
            return False
        await socket.send_json({"proof": proof(self.own_secret, Prover.RUNNER, NAME, nonce, answer.nonce)})
        return True
