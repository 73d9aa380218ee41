"""The streams of one end, and what they hold all together."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from kohakuriver.wire.tunnel.frames import MAX_PAYLOAD_BYTES, Transport
from kohakuriver.wire.tunnel.stream import UNLIMITED, Phase, Stream
from kohakuriver.wire.tunnel.windows import FIRST_WINDOW_BYTES, GrowthBudget, ReceiveWindow

_IDS = 1 << 32


class Role(Enum):
    OPENS = auto()
    """It sends CONNECT: the command line, or a runner towards a sandbox."""
    IS_ASKED = auto()
    """It dials: the client in a sandbox, or a runner towards a virtual machine."""


@dataclass(frozen=True, slots=True)
class TunnelBounds:
    streams: int = 1024
    opening: int = 64
    """CONNECTs that are not answered; further ones wait at the end that opens."""
    growth_bytes: int = 16 << 20
    """By which windows may be larger than the first ones, all together."""
    frame_bytes: int = MAX_PAYLOAD_BYTES
    """Of a stream in one frame. What a frame costs at each hop hardly depends on its size."""
    flow_datagrams: int = 64
    flow_bytes: int = 256 << 10
    """Of one flow, waiting to be written; older ones are dropped."""
    datagram_bytes: int = 4 << 20
    """The same of all flows; newer ones are dropped."""
    flow_idle_seconds: float = 60.0


class IdleFlows:
    """Flows in the order of their last datagram; nobody says that one is over, but nothing comes or goes.

    Only `idle` knows the time, so it is asked every few seconds.
    """

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._active: dict[int, None] = {}
        """Those with a datagram since it was asked last."""
        self._since: dict[int, float] = {}

    def touch(self, client_id: int) -> None:
        self._active[client_id] = None

    def forget(self, client_id: int) -> None:
        self._active.pop(client_id, None)
        self._since.pop(client_id, None)

    def idle(self, now: float) -> Iterator[int]:
        """Yield those that have been idle for so long; each is forgotten."""
        for client_id in self._active:
            self._since.pop(client_id, None)
            self._since[client_id] = now
        self._active.clear()
        while self._since:
            client_id, since = next(iter(self._since.items()))
            if now - since < self._idle_seconds:
                return
            del self._since[client_id]
            yield client_id


class StreamTable:
    """A stream stands in a queue at most once, and in none when it is gone."""

    def __init__(self, role: Role, has_credit: bool, bounds: TunnelBounds) -> None:
        self.role = role
        self.has_credit = has_credit
        self.bounds = bounds
        self.streams: dict[int, Stream] = {}
        self.flows = IdleFlows(bounds.flow_idle_seconds)
        self.opening = 0
        self.unread_bytes = 0
        self.datagram_bytes = 0
        self.unopened: OrderedDict[int, Stream] = OrderedDict()
        self.urgent: OrderedDict[int, Stream] = OrderedDict()
        self.turns: OrderedDict[int, Stream] = OrderedDict()
        self._growth = GrowthBudget(bounds.growth_bytes)
        self._last_id = 0

    @property
    def is_full(self) -> bool:
        return len(self.streams) >= self.bounds.streams

    def next_id(self) -> int:
        """Return one that no stream of the last 2^32 had."""
        while True:
            self._last_id = (self._last_id + 1) % _IDS
            if self._last_id not in self.streams:
                return self._last_id

    def add(self, client_id: int, transport: Transport, port: int, phase: Phase) -> Stream:
        has_credit = self.has_credit and transport is Transport.TCP
        credit = FIRST_WINDOW_BYTES if has_credit else UNLIMITED
        window = ReceiveWindow(self._growth) if has_credit else None
        stream = Stream(client_id, transport, port, phase, credit, window)
        self.streams[client_id] = stream
        if stream.is_flow:
            self.flows.touch(client_id)
        return stream

    def remove(self, stream: Stream) -> None:
        client_id = stream.client_id
        del self.streams[client_id]
        for queue in (self.unopened, self.urgent, self.turns):
            queue.pop(client_id, None)
        self.leave_opening(stream)
        self.drop_waiting(stream)
        self.flows.forget(client_id)
        self.unread_bytes -= stream.unread_bytes
        if stream.window is not None:
            stream.window.close()

    def leave_opening(self, stream: Stream) -> None:
        if stream.phase is Phase.OPENING and self.role is Role.OPENS:
            self.opening -= 1

    def drop_waiting(self, stream: Stream) -> None:
        if stream.is_flow:
            self.datagram_bytes -= stream.waiting_bytes
        stream.pieces.clear()
        stream.waiting_bytes = 0

    def hold_datagram(self, stream: Stream, datagram: memoryview) -> None:
        """The oldest of a flow give way to a new one; a new one gives way to those of other flows."""
        self.flows.touch(stream.client_id)
        size = len(datagram)
        if self.datagram_bytes + size > self.bounds.datagram_bytes:
            return
        stream.hold(datagram)
        self.datagram_bytes += size
        while (
            len(stream.pieces) > self.bounds.flow_datagrams or stream.waiting_bytes > self.bounds.flow_bytes
        ):
            self.datagram_bytes -= stream.drop_oldest()

    def may_send(self, stream: Stream) -> bool:
        """With credit the end that opens need not wait for CONNECTED: what it sends is bounded and held."""
        if stream.phase is Phase.OPEN:
            return not stream.answer_due
        return stream.phase is Phase.OPENING and self.role is Role.OPENS and self.has_credit

    def queue(self, stream: Stream) -> None:
        """Let it have a turn, if it has something to say and may."""
        if self.may_send(stream) and (stream.pieces or (stream.finishing and not stream.said_end)):
            self.turns[stream.client_id] = stream
