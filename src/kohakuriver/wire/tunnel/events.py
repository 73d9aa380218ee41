"""What an end of a tunnel tells its caller of one stream."""

from typing import TypeAlias

import msgspec

from kohakuriver.wire.tunnel.frames import Transport


class Opened(msgspec.Struct, frozen=True):
    """The other end asks for a connection: dial, then `connected`, or `reset` with the reason."""

    client_id: int
    transport: Transport
    port: int


class Connected(msgspec.Struct, frozen=True):
    """What was asked for by `open` is there."""

    client_id: int


class Received(msgspec.Struct, frozen=True):
    """Bytes of a stream, or one datagram. Of a stream, say `take` when they have been used."""

    client_id: int
    data: memoryview


class RoomAgain(msgspec.Struct, frozen=True):
    """The other end takes more, where it took nothing before."""

    client_id: int


class Finished(msgspec.Struct, frozen=True):
    """The other end sends no more on this stream; it still reads."""

    client_id: int


class Ended(msgspec.Struct, frozen=True):
    """The stream is over, in order, in both directions at once: a flow, or a stream without credit."""

    client_id: int


class Reset(msgspec.Struct, frozen=True):
    """The stream is over, not in order, with the reason."""

    client_id: int
    sentence: str


Event: TypeAlias = Opened | Connected | Received | RoomAgain | Finished | Ended | Reset
