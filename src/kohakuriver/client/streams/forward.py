"""Ports of a workload on this machine: local sockets, and a tunnel of the host that all of them share.

Rules: the local sockets stay while the tunnel is made anew, and who connects meanwhile is turned away at
once; what the host refuses for good ends it; nothing here outlives `run`.
"""

import asyncio
import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from kohakuriver.client.connection.host_trust import HostAccess
from kohakuriver.client.connection.web_sockets import refusal, socket_options
from kohakuriver.client.errors import TRANSIENT, HostUnreachable
from kohakuriver.descriptors import allow_many_connections
from kohakuriver.heap import keep_little
from kohakuriver.models.errors import Denied, InvalidInput, KohakuRiverError, Unavailable
from kohakuriver.pauses import growing_pauses
from kohakuriver.streams.pumping import first_to_end
from kohakuriver.streams.tunnels.sockets import TcpStream, break_off
from kohakuriver.streams.tunnels.streams import TunnelStreams
from kohakuriver.wire.tunnel.end import TunnelEnd
from kohakuriver.wire.tunnel.frames import SUBPROTOCOL, Transport
from kohakuriver.wire.tunnel.life import Due, Life
from kohakuriver.wire.tunnel.table import Role

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

__all__ = ["ForwardNews", "ForwardedPort", "PortForwarder", "Transfer", "Transport", "forward_ports"]

_CONNECTED: Final = "CONNECTED"
_POLICY_VIOLATION: Final = 1008
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 1.0
"""So that new connections work within about a second of the host's or runner's return."""
_TELL_SECONDS: Final = 1.0
_PIECE_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class ForwardedPort:
    """`port` of the workload, and where it is on this machine; local port 0: any that is free."""

    transport: Transport
    port: int
    local_host: str
    local_port: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bytes since the beginning, and connections and flows that are open now."""

    sent_bytes: int
    received_bytes: int
    open: int


class ForwardNews:
    """What `PortForwarder` tells; each does nothing by itself."""

    def ready(self, ports: list[ForwardedPort]) -> None:
        """Connected for the first time; `ports` with the local ports that they have got."""

    def lost(self, reason: KohakuRiverError) -> None:
        """The tunnel was lost and is made anew."""

    def again(self) -> None:
        """It is there again."""

    def refused(self, sentence: str) -> None:
        """A connection was broken off before the workload said anything in it."""

    def moved(self, transfer: Transfer) -> None:
        """Once a second."""


class PortForwarder:
    """`run` once."""

    def __init__(
        self,
        access: HostAccess,
        task_id: str,
        ports: list[ForwardedPort],
        news: ForwardNews,
        life: Callable[[float], Life] = Life,
    ) -> None:
        first = ports[0]
        self._access = access
        self._path = f"/ws/forward/{task_id}/{first.port}?proto={first.transport.name.lower()}"
        self._ports = ports
        self._news = news
        self._life = life
        self._streams: TunnelStreams | None = None
        self._earlier = Transfer(0, 0, 0)

    @property
    def transfer(self) -> Transfer:
        now, before = self._streams, self._earlier
        if now is None:
            return before
        sent, received = before.sent_bytes + now.sent_bytes, before.received_bytes + now.received_bytes
        return Transfer(sent, received, len(now))

    async def run(self) -> NoReturn:
        """Forward until it is cancelled; raises what the host refuses it with, and the first failure."""
        async with contextlib.AsyncExitStack() as stack:
            ports = [await self._listen(port, stack) for port in self._ports]
            connection = await self._connect()
            streams = self._begin()
            self._news.ready(ports)
            await first_to_end(self._stay_connected(connection, streams), self._tell_transfer())
        raise AssertionError("it ends with an error only")

    async def _stay_connected(self, connection: "ClientConnection", streams: TunnelStreams) -> NoReturn:
        while True:
            reason = await self._serve(connection, streams)
            self._news.lost(reason)
            connection = await self._connect_again()
            streams = self._begin()
            self._news.again()

    def _begin(self) -> TunnelStreams:
        """From now on whoever connects here is let in."""
        self._streams = TunnelStreams(TunnelEnd(Role.OPENS, credit=True))
        return self._streams

    async def _tell_transfer(self) -> NoReturn:
        while True:
            await asyncio.sleep(_TELL_SECONDS)
            self._news.moved(self.transfer)

    # The tunnel

    async def _connect(self) -> "ClientConnection":
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidHandshake

        uri, options = await asyncio.to_thread(socket_options, self._access, self._path, SUBPROTOCOL)
        options["sock"] = _for_the_loop(options["sock"])
        try:
            connection = await connect(uri, ping_interval=None, **options)
        except (OSError, TimeoutError, InvalidHandshake) as error:
            raise refusal(self._access, error) from error
        if connection.subprotocol != SUBPROTOCOL or await _next(connection) != _CONNECTED:
            await connection.close()
            raise Unavailable("the host does not forward ports as it must; is it as new as this program?")
        return connection

    async def _connect_again(self) -> "ClientConnection":
        for pause in growing_pauses(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS):
            await asyncio.sleep(pause)
            try:
                return await self._connect()
            except TRANSIENT:
                continue
        raise AssertionError("pauses never end")

    async def _serve(self, connection: "ClientConnection", streams: TunnelStreams) -> KohakuRiverError:
        """Carry the tunnel until it is lost; raises what ends it for good."""
        life = self._life(asyncio.get_running_loop().time())
        try:
            await first_to_end(
                _read(connection, streams, life), _write(connection, streams), _watch(streams, life)
            )
        except TRANSIENT as error:
            return error
        finally:
            self._earlier, self._streams = self.transfer, None
            streams.close("the tunnel is gone")
            await connection.close()
        raise AssertionError("a tunnel ends with its reason")

    # Local sockets

    async def _listen(self, port: ForwardedPort, stack: contextlib.AsyncExitStack) -> ForwardedPort:
        loop, place = asyncio.get_running_loop(), (port.local_host, port.local_port)
        try:
            if port.transport is Transport.UDP:
                flows = _LocalFlows(port.port, lambda: self._streams)
                transport, _ = await loop.create_datagram_endpoint(lambda: flows, local_addr=place)
                stack.callback(transport.close)
                local_port: int = transport.get_extra_info("sockname")[1]
            else:
                server = await loop.create_server(lambda: self._accepted(port.port), *place)
                stack.callback(server.close)
                local_port = server.sockets[0].getsockname()[1]
        except (OSError, OverflowError) as error:
            raise _unusable(port, error) from error
        return ForwardedPort(port.transport, port.port, port.local_host, local_port)

    def _accepted(self, port: int) -> asyncio.BaseProtocol:
        if self._streams is None:
            return _TurnedAway()
        return TcpStream(self._streams, port=port, refused=self._news.refused)


def _unusable(port: ForwardedPort, error: OSError | OverflowError) -> InvalidInput:
    """What the event loop says names the address once more, or hides the reason behind what it says."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    number, why = (cause.errno or 0, cause.strerror) if isinstance(cause, OSError) else (0, None)
    if number > 0:
        why = os.strerror(number).lower()
    advice = "--local-host has to be an address of this machine"
    if number in (errno.EADDRINUSE, errno.EACCES):
        advice = f"write 0:{port.port} for any that is free"
    place = f"port {port.local_port} of {port.local_host}"
    return InvalidInput(f"{place} cannot be used here: {why or cause}; {advice}")


def forward_ports(forwarder: PortForwarder) -> None:
    """Run until it fails, or until Ctrl-C, which is raised."""
    import uvloop

    keep_little()
    allow_many_connections()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(forwarder.run())


async def _read(connection: "ClientConnection", streams: TunnelStreams, life: Life) -> NoReturn:
    loop = asyncio.get_running_loop()
    while True:
        message = await _next(connection)
        if isinstance(message, bytes):
            life.heard(loop.time())
            streams.receive(message)


async def _write(connection: "ClientConnection", streams: TunnelStreams) -> NoReturn:
    from websockets.exceptions import ConnectionClosed

    while True:
        frame = await streams.next_frame()
        with contextlib.suppress(ConnectionClosed):  # who reads knows why
            await connection.send(frame)


async def _watch(streams: TunnelStreams, life: Life) -> NoReturn:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(max(0.0, life.wakes_at() - loop.time()))
        due = life.due(loop.time())
        if due is Due.END:
            raise Unavailable("nothing was heard of the host for too long")
        if due is Due.PING:
            streams.end.ping()
            streams.wake()


async def _next(connection: "ClientConnection") -> str | bytes:
    """Return the next message; raises Denied or Unavailable with the host's sentence once there is none."""
    from websockets.exceptions import ConnectionClosed

    sentence = ""
    try:
        while True:
            message = await connection.recv()
            if isinstance(message, bytes) or not message.startswith("Error: "):
                return message
            sentence = message.removeprefix("Error: ")
    except ConnectionClosed as error:
        closed = error.rcvd
        if closed is None:
            raise HostUnreachable("the connection to the host was lost") from error
        sentence = sentence or closed.reason or "the host ended the tunnel"
        raise (Denied if closed.code == _POLICY_VIOLATION else Unavailable)(sentence) from error


class _TurnedAway(asyncio.Protocol):
    """A connection while there is no tunnel."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        break_off(cast(asyncio.Transport, transport))


class _LocalFlows(asyncio.DatagramProtocol):
    """A local UDP port: each sender has a flow of its own."""

    def __init__(self, port: int, streams_now: Callable[[], TunnelStreams | None]) -> None:
        self._port = port
        self._streams_now = streams_now
        self._flows: dict[Any, _LocalFlow] = {}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        streams = self._streams_now()
        if streams is None:
            return
        flow = self._flows.get(addr) or self._open(streams, addr)
        if flow is not None:
            streams.end.send(flow.client_id, data)
            streams.sent_bytes += len(data)
            streams.wake()

    def error_received(self, exc: Exception) -> None:
        """A sender that is gone; its flow ends when it is idle."""

    def _open(self, streams: TunnelStreams, sender: Any) -> "_LocalFlow | None":
        client_id = streams.end.open(Transport.UDP, self._port)
        if client_id is None:
            return None
        flow = self._flows[sender] = _LocalFlow(self, client_id, sender)
        streams.add(client_id, Transport.UDP, flow)
        return flow

    def answer(self, data: memoryview, sender: Any) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(bytes(data), sender)

    def forget(self, sender: Any) -> None:
        self._flows.pop(sender, None)


@dataclass(slots=True)
class _LocalFlow:
    flows: _LocalFlows
    client_id: int
    sender: Any

    def received(self, data: memoryview) -> None:
        self.flows.answer(data, self.sender)

    def room_again(self) -> None:
        """Datagrams do not wait for room."""

    def finished(self) -> None:
        """A flow ends both ways at once."""

    def ended(self, _sentence: str | None) -> None:
        self.flows.forget(self.sender)


def _for_the_loop(sock: socket.socket | None) -> socket.socket | None:
    """The socket as an event loop takes it: with TLS on it already, by way of a pair and two threads."""
    import ssl

    if not isinstance(sock, ssl.SSLSocket):
        return sock
    near, far = socket.socketpair()
    for source, sink in ((sock, far), (far, sock)):
        threading.Thread(target=_copy, args=(source, sink), daemon=True, name="tls").start()
    return near


def _copy(source: socket.socket, sink: socket.socket) -> None:
    for piece in _pieces(source):
        try:
            sink.sendall(piece)
        except OSError:
            break
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _pieces(source: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE_BYTES):
            yield piece
