"""One end of a tunnel, without its sockets: frames in, events out; calls in, frames out.

It knows no socket and no clock. Rules:

- Ids are chosen by the end that opens, each once in 2^32: a frame that crosses the end of its stream on the
  way can never be taken for one of a later stream. A frame of a stream that is not there is dropped.
- What harms the tunnel (no frame, an id in use, CONNECT at the end that opens) is an InvalidInput, with which
  the caller ends the tunnel. What harms one stream (more than its credit, data after its end) resets that
  stream and no other.
- Everything is bounded: streams and refusals by number, what waits by `room`, what came in by the windows.
  Without credit nothing holds the other end back, so the caller reads on only while `may_read`.
- A stream keeps its place in the table until its ERROR is written, so resets need no bound of their own.
- Frames of control go before data; data goes one frame a stream, in turns.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final

from kohakuriver.models.errors import InvalidInput
from kohakuriver.wire.tunnel.events import (
    Connected,
    Ended,
    Event,
    Finished,
    Opened,
    Received,
    Reset,
    RoomAgain,
)
from kohakuriver.wire.tunnel.frames import (
    HEADER_BYTES,
    MAX_DATAGRAM_BYTES,
    FrameType,
    Header,
    Transport,
    amount_payload,
    frame_of,
    read_amount,
    read_header,
    read_sentence,
    sentence_payload,
)
from kohakuriver.wire.tunnel.stream import Phase, Stream
from kohakuriver.wire.tunnel.table import Role, StreamTable, TunnelBounds
from kohakuriver.wire.tunnel.windows import MAX_CREDIT_BYTES

MAX_REFUSALS: Final = 1024
MAX_UNREAD_BYTES: Final = 1 << 20
"""Of all streams without credit, before the tunnel is read on."""


class TunnelEnd:
    def __init__(self, role: Role, *, credit: bool, bounds: TunnelBounds | None = None) -> None:
        self._role = role
        self._credit = credit
        self._table = StreamTable(role, credit, bounds or TunnelBounds())
        self._signs: list[FrameType] = []
        self._refusals: deque[bytes] = deque()

    def __len__(self) -> int:
        return len(self._table.streams)

    def __contains__(self, client_id: int) -> bool:
        return client_id in self._table.streams

    def open(self, transport: Transport, port: int) -> int | None:
        """Ask the other end for a connection to `port`; None where there are as many streams as may be."""
        if self._table.is_full:
            return None
        client_id = self._table.next_id()
        self._table.unopened[client_id] = self._table.add(client_id, transport, port, Phase.WAITING)
        return client_id

    def connected(self, client_id: int) -> None:
        """The connection that the other end asked for is there."""
        stream = self._table.streams.get(client_id)
        if stream is not None and stream.phase is Phase.OPENING and self._role is Role.IS_ASKED:
            stream.phase = Phase.OPEN
            stream.answer_due = True
            self._table.urgent[client_id] = stream

    def room(self, client_id: int) -> int:
        """How many bytes `send` takes now; more after a frame of it was written, with Connected or RoomAgain.

        A flow takes each datagram, and drops what is too much.
        """
        stream = self._table.streams.get(client_id)
        if stream is None or stream.is_over:
            return 0
        if stream.is_flow:
            return MAX_DATAGRAM_BYTES
        may_hold = stream.phase is Phase.OPEN or (self._role is Role.OPENS and self._credit)
        return stream.room() if may_hold else 0

    def send(self, client_id: int, data: bytes | memoryview) -> None:
        """Send at most `room` bytes, or one datagram. What is for a stream that is over is dropped."""
        stream = self._table.streams.get(client_id)
        if stream is None or stream.is_over or not (data or stream.is_flow):
            return
        if len(data) > self.room(client_id):
            if stream.is_flow:
                return
            raise ValueError(f"{len(data)} bytes for a stream that takes {self.room(client_id)}")
        if stream.is_flow:
            self._table.hold_datagram(stream, memoryview(data))
        else:
            stream.hold(memoryview(data))
        self._table.queue(stream)

    def waiting(self, client_id: int) -> int:
        """How many bytes of what `send` holds have not been written."""
        stream = self._table.streams.get(client_id)
        return 0 if stream is None else stream.waiting_bytes

    def finish(self, client_id: int) -> None:
        """Send no more after what waits. Without credit, and of a flow, this ends the other direction too."""
        stream = self._table.streams.get(client_id)
        if stream is not None and not stream.is_over:
            stream.finishing = True
            self._table.queue(stream)

    def reset(self, client_id: int, sentence: str) -> None:
        """End both directions at once; there is no further event of the stream."""
        stream = self._table.streams.get(client_id)
        if stream is None or stream.phase is Phase.FALLEN:
            return
        if stream.phase is Phase.WAITING:
            self._table.remove(stream)
            return
        self._table.drop_waiting(stream)
        self._table.leave_opening(stream)
        stream.phase = Phase.FALLEN
        stream.sentence = sentence
        self._table.urgent[client_id] = stream

    def take(self, client_id: int, amount: int) -> None:
        """Its reader has taken `amount` of the bytes that came with Received."""
        stream = self._table.streams.get(client_id)
        if stream is None or stream.is_flow or stream.phase is Phase.FALLEN:
            return
        if amount > stream.unread_bytes:
            raise ValueError(f"{amount} bytes taken of {stream.unread_bytes}")
        stream.unread_bytes -= amount
        self._table.unread_bytes -= amount
        if stream.window is not None and not stream.heard_end:
            stream.grant += stream.window.take(amount)
            if stream.grant and stream.phase is Phase.OPEN:  # CONNECTED goes first
                self._table.urgent[client_id] = stream

    def ping(self) -> None:
        self._sign(FrameType.PING)

    def tick(self, now: float) -> Iterator[Ended]:
        """End the flows that are idle. To be called every few seconds."""
        for client_id in self._table.flows.idle(now):
            if not self._table.streams[client_id].is_over:
                self.finish(client_id)
                yield Ended(client_id)

    @property
    def may_read(self) -> bool:
        return self._credit or self._table.unread_bytes < MAX_UNREAD_BYTES

    def next_frame(self) -> tuple[int, bytes] | None:
        """Return what to write next and the id of its stream, 0 where it is of none."""
        table = self._table
        if self._signs:
            return 0, frame_of(Header(self._signs.pop(0), Transport.TCP, 0, 0))
        if self._refusals:
            return 0, self._refusals.popleft()
        if table.urgent:
            client_id, stream = table.urgent.popitem(last=False)
            return client_id, self._urgent_frame(stream)
        if table.unopened and table.opening < table.bounds.opening:
            client_id, stream = table.unopened.popitem(last=False)
            stream.phase = Phase.OPENING
            table.opening += 1
            table.queue(stream)
            return client_id, stream.frame(FrameType.CONNECT)
        if table.turns:
            client_id, stream = table.turns.popitem(last=False)
            return client_id, self._turn_frame(stream)
        return None

    def _urgent_frame(self, stream: Stream) -> bytes:
        if stream.phase is Phase.FALLEN:
            self._table.remove(stream)
            return stream.frame(FrameType.ERROR, sentence_payload(stream.sentence))
        if stream.answer_due:
            stream.answer_due = False
            if stream.grant:
                self._table.urgent[stream.client_id] = stream
            self._table.queue(stream)
            return stream.frame(FrameType.CONNECTED)
        grant, stream.grant = stream.grant, 0
        return stream.frame(FrameType.WINDOW, amount_payload(grant))

    def _turn_frame(self, stream: Stream) -> bytes:
        if not stream.pieces:
            stream.said_end = True
            if stream.heard_end or stream.is_flow or not self._credit:
                self._table.remove(stream)
            return stream.frame(FrameType.CLOSE)
        piece = stream.next_piece(self._table.bounds.frame_bytes)
        if stream.is_flow:
            self._table.datagram_bytes -= len(piece)
        self._table.queue(stream)
        return stream.frame(FrameType.DATA, piece)

    def receive(self, frame: bytes | bytearray | memoryview) -> Event | None:
        """Take one frame. Raises InvalidInput for a breach of the rules that ends the tunnel."""
        header = read_header(frame)
        kind = header.type
        if kind == FrameType.DATA:  # first, since it is nearly every one
            pass
        elif kind == FrameType.CONNECT:
            return self._receive_connect(header)
        elif kind == FrameType.PING:
            self._sign(FrameType.PONG)
            return None
        elif kind == FrameType.PONG or not 0 < kind <= FrameType.WINDOW:
            return None
        stream = self._table.streams.get(header.client_id)
        if stream is None or stream.phase is Phase.FALLEN or stream.phase is Phase.WAITING:
            return None
        if stream.is_flow and stream.finishing:
            self._receive_late(stream, kind)
            return None
        return self._receive_of(stream, kind, memoryview(frame)[HEADER_BYTES:])

    def _receive_connect(self, header: Header) -> Opened | None:
        if self._role is Role.OPENS:
            raise InvalidInput("CONNECT came to the end that opens")
        if header.client_id in self._table.streams:
            raise InvalidInput(f"CONNECT names the stream {header.client_id}, which is in use")
        refusal = ""
        if not header.port:
            refusal = "port 0 is none that anything listens on"
        elif self._table.is_full:
            refusal = f"{len(self)} connections are open, and no more may be"
        if refusal:
            self._refuse(header, refusal)
            return None
        transport = Transport(header.transport)
        self._table.add(header.client_id, transport, header.port, Phase.OPENING)
        return Opened(header.client_id, transport, header.port)

    def _refuse(self, header: Header, sentence: str) -> None:
        if len(self._refusals) >= MAX_REFUSALS:
            raise InvalidInput("more connections are asked for than refusals are read")
        self._refusals.append(frame_of(header._replace(type=FrameType.ERROR), sentence_payload(sentence)))

    def _receive_late(self, stream: Stream, kind: int) -> None:
        """The caller knows already that this flow is over."""
        if kind in {FrameType.CLOSE, FrameType.ERROR}:
            self._table.remove(stream)

    def _receive_of(self, stream: Stream, kind: int, payload: memoryview) -> Event | None:
        if kind == FrameType.ERROR:
            self._table.remove(stream)
            return Reset(stream.client_id, read_sentence(payload))
        if kind == FrameType.CONNECTED:
            return self._receive_connected(stream)
        if self._role is Role.OPENS and stream.phase is Phase.OPENING:
            return self._fall(stream, "something came before CONNECTED")
        if kind == FrameType.DATA:
            return self._receive_data(stream, payload)
        if kind == FrameType.CLOSE:
            return self._receive_close(stream)
        if stream.window is not None:
            return self._receive_window(stream, payload)
        return None

    def _receive_connected(self, stream: Stream) -> Event:
        if self._role is not Role.OPENS or stream.phase is not Phase.OPENING:
            return self._fall(stream, "CONNECTED came to a stream that waits for none")
        self._table.leave_opening(stream)
        stream.phase = Phase.OPEN
        self._table.queue(stream)
        return Connected(stream.client_id)

    def _receive_data(self, stream: Stream, payload: memoryview) -> Event | None:
        size = len(payload)
        if stream.is_flow:
            self._table.flows.touch(stream.client_id)
            return Received(stream.client_id, payload) if size <= MAX_DATAGRAM_BYTES else None
        if stream.heard_end:
            return self._fall(stream, "data came after its end")
        if stream.window is not None and not stream.window.receive(size):
            return self._fall(stream, "more data came than was allowed")
        if not size:
            return None
        stream.unread_bytes += size
        self._table.unread_bytes += size
        return Received(stream.client_id, payload)

    def _receive_close(self, stream: Stream) -> Event | None:
        if stream.is_flow or not self._credit:
            self._table.remove(stream)
            return Ended(stream.client_id)
        if stream.heard_end:
            return None
        stream.heard_end = True
        if stream.said_end:
            self._table.remove(stream)
        return Finished(stream.client_id)

    def _receive_window(self, stream: Stream, payload: memoryview) -> Event | None:
        amount = read_amount(payload)
        if amount is None or stream.credit + amount > MAX_CREDIT_BYTES:
            return self._fall(stream, "a WINDOW came that is none, or gives too much")
        had_room = stream.room() > 0
        stream.credit += amount
        return RoomAgain(stream.client_id) if stream.room() > 0 and not had_room else None

    def _fall(self, stream: Stream, sentence: str) -> Reset:
        self.reset(stream.client_id, sentence)
        return Reset(stream.client_id, sentence)

    def _sign(self, kind: FrameType) -> None:
        if kind not in self._signs:
            self._signs.append(kind)
