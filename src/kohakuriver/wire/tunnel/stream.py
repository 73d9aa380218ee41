"""One stream at one end: what it may send, what waits to be sent, and which of its ends were said and heard.

    WAITING --CONNECT written--> OPENING --CONNECTED--> OPEN        the end that opens
                      CONNECT taken--> OPENING --connected()--> OPEN        the end that is asked
    any of these --reset()--> FALLEN --ERROR written--> gone

In OPEN each direction ends by itself: ours with `said_end`, the other's with `heard_end`; with both it is
gone.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from kohakuriver.wire.tunnel.frames import FrameType, Header, Transport, frame_of
from kohakuriver.wire.tunnel.windows import ReceiveWindow

MAX_WAITING_BYTES: Final = 64 << 10
"""Of a stream, between its socket and the WebSocket."""
UNLIMITED: Final = 1 << 62
"""The credit of a stream whose tunnel knows none."""


class Phase(Enum):
    WAITING = auto()
    OPENING = auto()
    OPEN = auto()
    FALLEN = auto()


@dataclass(slots=True, eq=False)
class Stream:
    """`window` is None for a flow, and where the tunnel knows no credit."""

    client_id: int
    transport: Transport
    port: int
    phase: Phase
    credit: int
    window: ReceiveWindow | None
    pieces: deque[memoryview] = field(default_factory=deque)
    waiting_bytes: int = 0
    unread_bytes: int = 0
    grant: int = 0
    sentence: str = ""
    answer_due: bool = False
    finishing: bool = False
    said_end: bool = False
    heard_end: bool = False

    @property
    def is_flow(self) -> bool:
        return self.transport is Transport.UDP

    @property
    def is_over(self) -> bool:
        """Whether nothing more may be sent, for all that the caller knows."""
        return self.finishing or self.phase is Phase.FALLEN

    def room(self) -> int:
        """What may be held is never more than what may be sent, so whatever waits can be written."""
        return 0 if self.is_over else max(0, min(MAX_WAITING_BYTES, self.credit) - self.waiting_bytes)

    def hold(self, piece: memoryview) -> None:
        self.pieces.append(piece)
        self.waiting_bytes += len(piece)

    def drop_oldest(self) -> int:
        """Return how many bytes that were."""
        size = len(self.pieces.popleft())
        self.waiting_bytes -= size
        return size

    def next_piece(self, most: int) -> memoryview:
        """Take what one frame carries: a datagram, or at most that much of the first piece."""
        piece = self.pieces.popleft()
        if not self.is_flow and len(piece) > most:
            self.pieces.appendleft(piece[most:])
            piece = piece[:most]
        self.waiting_bytes -= len(piece)
        if not self.is_flow:
            self.credit -= len(piece)
        return piece

    def frame(self, kind: FrameType, payload: bytes | memoryview = b"") -> bytes:
        return frame_of(Header(kind, self.transport, self.client_id, self.port), payload)
