"""A process at the end of a stream: frames into it, and what it writes and how it ends as frames."""

from typing import Protocol

from kohakuriver.models.enums import Flow
from kohakuriver.models.errors import InvalidInput, Unavailable
from kohakuriver.wire.channel import Channel
from kohakuriver.wire.terminal_frames import (
    EndOfInput,
    ExitNews,
    Resize,
    control_frame,
    data_frames,
    read_control,
    read_data,
)


class AnyProcess(Protocol):
    """What an engine's process can do, whichever engine made it."""

    async def read(self) -> tuple[Flow, bytes] | None: ...

    async def write(self, data: bytes) -> None:
        """Raises Unavailable once it has ended."""

    async def close_input(self) -> None: ...

    async def resize(self, rows: int, cols: int) -> None: ...

    async def exit_status(self) -> int: ...


async def feed(process: AnyProcess, channel: Channel) -> None:
    """Return when the client is gone. What comes after the process has ended is taken and forgotten."""
    while (message := await channel.receive()) is not None:
        try:
            await _hand_over(process, message)
        except Unavailable:
            continue  # its end is told by whoever reads its output


async def tell(process: AnyProcess, channel: Channel) -> None:
    """Return when all that it wrote was sent, and its exit status after that."""
    while (piece := await process.read()) is not None:
        for frame in data_frames(*piece):
            await channel.send(frame)
    await channel.send(control_frame(ExitNews(await process.exit_status())))


async def _hand_over(process: AnyProcess, message: str | bytes) -> None:
    if isinstance(message, bytes):
        flow, data = read_data(message)
        if flow is not Flow.INPUT:
            raise InvalidInput("data for a process begins with the byte 0 (input)")
        await process.write(data)
        return
    match read_control(message):
        case Resize(rows=rows, cols=cols):
            await process.resize(rows, cols)
        case EndOfInput():
            await process.close_input()
        case other:
            raise InvalidInput(f"a process takes the frames resize and eof, not {type(other).__name__}")
