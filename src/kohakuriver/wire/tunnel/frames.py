"""Frames of the tunnel: a header of eight bytes, big-endian, and a payload.

One message of the WebSocket is one frame. Who only passes frames on reads the header and exchanges the client
id, which copies a frame once and looks at no payload. Rules: docs/design/0036-tunnel.md.
"""

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from kohakuriver.models.errors import InvalidInput

SUBPROTOCOL: Final = "kohakuriver.tunnel.v2"
"""With credit. `EARLIER_SUBPROTOCOL`, and none at all, mean the frames without it."""
EARLIER_SUBPROTOCOL: Final = "kohakuriver.tunnel.v1"

HEADER_BYTES: Final = 8
MAX_PAYLOAD_BYTES: Final = 65_536
MAX_FRAME_BYTES: Final = HEADER_BYTES + MAX_PAYLOAD_BYTES
MAX_DATAGRAM_BYTES: Final = 65_507
"""What fits into one packet of UDP over IPv4."""
MAX_SENTENCE_BYTES: Final = 512

_HEADER: Final = struct.Struct(">BBIH")
_UINT32: Final = struct.Struct(">I")


class FrameType(IntEnum):
    CONNECT = 1
    CONNECTED = 2
    DATA = 3
    CLOSE = 4
    ERROR = 5
    PING = 6
    PONG = 7
    WINDOW = 8


class Transport(IntEnum):
    TCP = 0
    UDP = 1


class Header(NamedTuple):
    """Of a frame. `type` is a plain number, since a type that is not known is skipped and no fault."""

    type: int
    transport: int
    client_id: int
    port: int


def read_header(frame: bytes | bytearray | memoryview) -> Header:
    """Raises InvalidInput for what is no frame: too short, too long, or of no known transport."""
    if not HEADER_BYTES <= len(frame) <= MAX_FRAME_BYTES:
        raise InvalidInput(f"a frame has {HEADER_BYTES} to {MAX_FRAME_BYTES} bytes, not {len(frame)}")
    header = Header._make(_HEADER.unpack_from(frame))
    if header.transport > Transport.UDP:
        raise InvalidInput(f"a frame names transport {header.transport}; 0 is TCP and 1 is UDP")
    return header


def frame_of(header: Header, payload: bytes | bytearray | memoryview = b"") -> bytes:
    return b"".join((_HEADER.pack(*header), payload))


def with_client_id(frame: bytes | bytearray | memoryview, client_id: int) -> bytes:
    """Return the frame under another id. Its header was read before."""
    view = memoryview(frame)
    return b"".join((view[:2], _UINT32.pack(client_id), view[6:]))


def amount_payload(amount_bytes: int) -> bytes:
    """Of WINDOW: how many bytes more may come."""
    return _UINT32.pack(amount_bytes)


def read_amount(payload: memoryview) -> int | None:
    """Return what a WINDOW gives, None for a payload that is none."""
    if len(payload) != _UINT32.size:
        return None
    amount: int = _UINT32.unpack(payload)[0]
    return amount


def sentence_payload(sentence: str) -> bytes:
    """Of ERROR, cut between two characters."""
    return sentence.encode("utf-8", "replace")[:MAX_SENTENCE_BYTES].decode("utf-8", "ignore").encode()


def read_sentence(payload: memoryview) -> str:
    """Return it as text that can be shown: it was written by who may be nobody's friend."""
    text = bytes(payload[:MAX_SENTENCE_BYTES]).decode("utf-8", "ignore")
    return "".join(c if c.isprintable() else " " for c in text)
