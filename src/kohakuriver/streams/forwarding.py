"""One forwarded TCP connection over a `Channel`: what its ends say to each other, and the relay of either.

The dialling end first says `open`, or closes with the error that it met. Binary messages are the connection's
bytes. `eof` says that no more bytes will come from that end, and the other direction goes on. The connection
is over when both have said so or the channel is closed.
"""

import asyncio
from typing import Protocol

from kohakuriver.models.errors import Unavailable
from kohakuriver.wire.channel import Channel

OPENED = "open"
END_OF_INPUT = "eof"
LAST_WORDS_SECONDS = 10.0


class Line(Protocol):
    """What carries the connection on at this end. One reader and one writer at a time."""

    async def read(self) -> bytes:
        """Return the next bytes, at most `MAX_MESSAGE_BYTES`; none once its input has ended.

        Raises Unavailable if the line broke.
        """

    async def write(self, data: bytes) -> None:
        """Wait while the line takes no more; raises Unavailable once nothing can be written to it."""

    def end_output(self) -> None:
        """Say that nothing more will be written."""

    async def gone(self) -> None:
        """Return when the line is known to be closed as a whole, which is more than the end of its input."""


async def expect_opened(channel: Channel) -> None:
    """Wait until the other end has dialled; raises the error that it met."""
    if await channel.receive() != OPENED:
        raise Unavailable("the node did not answer as it must; is its runner of another version?")


async def relay(channel: Channel, line: Line) -> None:
    """Carry bytes both ways until the connection is over; the caller closes both ends.

    What a line that is gone has said is still delivered, for ten seconds. Raises what either end raises.
    """
    heard_end = asyncio.Event()
    outward = asyncio.create_task(_carry_out(line, channel))
    inward = asyncio.create_task(_carry_in(channel, line, heard_end))
    both_ended = asyncio.create_task(_both(outward, heard_end))
    gone = asyncio.create_task(line.gone())
    parts = (outward, inward, both_ended, gone)
    try:
        await asyncio.wait((inward, both_ended, gone), return_when=asyncio.FIRST_COMPLETED)
        if inward.done() or both_ended.done():
            for part in (inward, both_ended):
                if part.done():
                    part.result()
        else:
            await asyncio.wait((outward,), timeout=LAST_WORDS_SECONDS)
    finally:
        for part in parts:
            part.cancel()
        await asyncio.gather(*parts, return_exceptions=True)


async def _carry_out(line: Line, channel: Channel) -> None:
    while data := await line.read():
        await channel.send(data)
    await channel.send(END_OF_INPUT)


async def _carry_in(channel: Channel, line: Line, heard_end: asyncio.Event) -> None:
    while (message := await channel.receive()) is not None:
        if isinstance(message, bytes):
            await line.write(message)
        elif message == END_OF_INPUT:
            line.end_output()
            heard_end.set()


async def _both(outward: "asyncio.Task[None]", heard_end: asyncio.Event) -> None:
    """End when both directions have; fail as soon as the outward one does."""
    await outward
    await heard_end.wait()
