"""Sockets that streams of a tunnel lead to, at either end: a TCP connection, and a flow of datagrams."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from kohakuriver.streams.tunnels.streams import TunnelStreams
from kohakuriver.wire.tunnel.frames import Transport

_UNWRITTEN_BYTES: Final = 16 << 10
"""What a socket has not taken, before its stream gets no more credit."""
_UNSENT_BYTES: Final = 64 << 10
"""What a socket takes that nobody reads. The kernel's own measure is megabytes for each connection, so that a
thousand of them would take the machine's memory."""
_EARLY_DATAGRAMS: Final = 16
"""Kept until their socket is there."""
_BROKEN: Final = "the connection was broken off"


class TcpStream(asyncio.BufferedProtocol):
    """One connection. It reads no more than the stream takes, and credit is given for what its socket took.

    `client_id` None: it asks the other end for a stream to `port` once it is there. Else the other end has
    asked, and what comes before the connection is there waits for it. `refused`: is told why, where the other
    end ends it before it has said anything.
    """

    def __init__(
        self,
        streams: TunnelStreams,
        client_id: int | None = None,
        port: int = 0,
        refused: Callable[[str], None] | None = None,
    ) -> None:
        self._streams = streams
        self._refused = refused
        self._end = streams.end
        self._id = -1 if client_id is None else client_id
        self._opens = client_id is None
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._early: list[memoryview] = []
        self._unsent: deque[memoryview] = deque()
        self._untaken_bytes = 0
        self._is_full = False
        self._read_end = False
        self._heard_end = False
        self._has_heard = False
        self._is_over = False
        if client_id is not None:
            streams.add(client_id, Transport.TCP, self)

    # The socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_UNWRITTEN_BYTES)
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSENT_BYTES)
        if not self._opens:
            self._begin()
        elif (opened := self._end.open(Transport.TCP, self._port)) is not None:
            self._id = opened
            self._streams.add(opened, Transport.TCP, self)
        else:
            self._is_over = True
            if self._refused is not None:
                self._refused(f"{len(self._end)} connections are open, and no more may be")
        if self._is_over:
            break_off(self._transport)
        else:
            self._pace()

    def _begin(self) -> None:
        self._end.connected(self._id)
        self._streams.wake()
        early, self._early = self._early, []
        for data in early:
            self.received(data)
        if self._heard_end:
            self.finished()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room for what the stream takes, so that nothing lies here that it does not."""
        return self._streams.read_buffer[: max(1, self._end.room(self._id))]

    def buffer_updated(self, nbytes: int) -> None:
        self._unsent.append(memoryview(bytes(self._streams.read_buffer[:nbytes])))
        self.room_again()

    def eof_received(self) -> bool:
        self._read_end = True
        self.room_again()
        return True

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._take(self._untaken_bytes)
        self._untaken_bytes = 0

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_over:
            self._leave()
            self._end.reset(self._id, _BROKEN)
            self._streams.wake()

    # The stream

    def received(self, data: memoryview) -> None:
        self._has_heard = True
        if self._transport is None:
            self._early.append(data)
            return
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if self._is_full:
            self._untaken_bytes += len(data)
        else:
            self._take(len(data))

    def room_again(self) -> None:
        if self._is_over:
            return
        while self._unsent and (room := self._end.room(self._id)) > 0:
            piece = self._unsent.popleft()
            if len(piece) > room:
                self._unsent.appendleft(piece[room:])
                piece = piece[:room]
            self._end.send(self._id, piece)
            self._streams.sent_bytes += len(piece)
            self._streams.wake()
        if self._read_end and not self._unsent:
            self._end.finish(self._id)
            self._streams.wake()
            self._close_if_over()
        else:
            self._pace()

    def finished(self) -> None:
        self._heard_end = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()
        self._close_if_over()

    def ended(self, sentence: str | None) -> None:
        if self._refused is not None and sentence is not None and not self._has_heard:
            self._refused(sentence)
        self._is_over = True
        self._early.clear()
        if self._transport is not None and sentence is None:
            self._transport.close()
        elif self._transport is not None:
            break_off(self._transport)

    def _take(self, amount: int) -> None:
        self._end.take(self._id, amount)
        self._streams.wake()

    def _pace(self) -> None:
        if self._transport is None or self._transport.is_closing() or self._read_end:
            return
        if self._unsent or not self._end.room(self._id):
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _close_if_over(self) -> None:
        if self._heard_end and self._read_end and not self._unsent and self._transport is not None:
            self._leave()
            self._transport.close()

    def _leave(self) -> None:
        self._is_over = True
        self._streams.drop(self._id)


class UdpFlow(asyncio.DatagramProtocol):
    """One flow at the end that is asked; its socket is connected to where the datagrams go."""

    def __init__(self, streams: TunnelStreams, client_id: int) -> None:
        self._streams = streams
        self._id = client_id
        self._transport: asyncio.DatagramTransport | None = None
        self._early: deque[memoryview] = deque(maxlen=_EARLY_DATAGRAMS)
        streams.add(client_id, Transport.UDP, self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._streams.end.connected(self._id)
        self._streams.wake()
        for data in self._early:
            self.received(data)
        self._early.clear()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._streams.end.send(self._id, data)
        self._streams.sent_bytes += len(data)
        self._streams.wake()

    def error_received(self, exc: Exception) -> None:
        """Nothing listens now; it may later."""

    def received(self, data: memoryview) -> None:
        if self._transport is None:
            self._early.append(data)
        elif not self._transport.is_closing():
            self._transport.sendto(bytes(data))

    def room_again(self) -> None:
        """Datagrams do not wait for room."""

    def finished(self) -> None:
        """A flow ends both ways at once."""

    def ended(self, _sentence: str | None) -> None:
        if self._transport is not None:
            self._transport.close()


def break_off(transport: asyncio.Transport) -> None:
    """Close so that the peer sees that this was no orderly end."""
    if not transport.is_closing():
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()
