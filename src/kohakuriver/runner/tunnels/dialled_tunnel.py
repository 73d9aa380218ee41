"""A tunnel into a workload whose ports are dialled from here, by address."""

import asyncio
from collections.abc import Callable
from typing import Final

from kohakuriver.models.errors import KohakuRiverError, Unavailable
from kohakuriver.streams.tunnels.sockets import TcpStream, UdpFlow
from kohakuriver.streams.tunnels.streams import TunnelStreams
from kohakuriver.wire.tunnel.end import TunnelEnd
from kohakuriver.wire.tunnel.events import Opened
from kohakuriver.wire.tunnel.frames import Transport
from kohakuriver.wire.tunnel.table import Role

_DIAL_SECONDS: Final = 10.0

PlaceOf = Callable[[Transport, int], tuple[str, int]]
"""Where a port of the workload is; raises the error that says why it is nowhere."""


class DialledTunnel:
    """See `engines.contract.ports.PortTunnel`. `end` when the workload does."""

    def __init__(self, place_of: PlaceOf) -> None:
        self._place_of = place_of
        self._streams = TunnelStreams(TunnelEnd(Role.IS_ASKED, credit=True), self._opened)
        self._dials: set[asyncio.Task[None]] = set()
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def send(self, frame: bytes) -> None:
        self._check()
        self._streams.receive(frame)

    async def receive(self) -> bytes:
        self._check()
        written = asyncio.ensure_future(self._streams.next_frame())
        try:
            await asyncio.wait((written, self._over), return_when=asyncio.FIRST_COMPLETED)
            self._check()
            return written.result()
        finally:
            written.cancel()

    def close(self) -> None:
        self.end("the tunnel was closed here")

    def end(self, sentence: str) -> None:
        if not self._over.done():
            self._over.set_result(sentence)
            for dial in self._dials:
                dial.cancel()
            self._streams.close(sentence)

    def _check(self) -> None:
        if self._over.done():
            raise Unavailable(self._over.result())

    def _opened(self, event: Opened) -> None:
        # What comes from now on is the stream's, and frames may wait already.
        is_flow = event.transport is Transport.UDP
        user = (UdpFlow if is_flow else TcpStream)(self._streams, event.client_id)
        dial = asyncio.get_running_loop().create_task(self._dial(event, user))
        self._dials.add(dial)
        dial.add_done_callback(self._dials.discard)

    async def _dial(self, event: Opened, user: TcpStream | UdpFlow) -> None:
        loop, streams = asyncio.get_running_loop(), self._streams
        try:
            place = self._place_of(event.transport, event.port)
            async with asyncio.timeout(_DIAL_SECONDS):
                if isinstance(user, UdpFlow):
                    await loop.create_datagram_endpoint(lambda: user, remote_addr=place)
                else:
                    await loop.create_connection(lambda: user, *place)
        except KohakuRiverError as error:
            sentence = str(error)
        except TimeoutError:
            sentence = f"port {event.port} of the workload does not answer"
        except OSError as error:
            sentence = f"port {event.port} of the workload is not reached: {error.strerror}"
        else:
            return
        streams.drop(event.client_id)
        streams.end.reset(event.client_id, sentence)
        streams.wake()
