"""Frames of terminals and commands, the same from the client over the host to the runner.

They are the messages of `kohakuriver.tty.v2`: a binary one is one byte that names the `Flow` and then bytes,
a text one is JSON of a `Control`. Unknown fields are ignored, so that mixed versions can talk.
"""

from collections.abc import Iterator
from typing import Annotated, TypeAlias

import msgspec

from kohakuriver.models.enums import Flow
from kohakuriver.models.errors import InvalidInput
from kohakuriver.wire.bounds import ExitCode, NonNegative, cut
from kohakuriver.wire.channel import MAX_MESSAGE_BYTES

SUBPROTOCOL = "kohakuriver.tty.v2"
MAX_DATA_BYTES = MAX_MESSAGE_BYTES - 1


Side = Annotated[int, msgspec.Meta(ge=-1, le=65535)]
"""Of a terminal, as far as the kernel counts; whoever opens one judges what is too small."""


class Resize(msgspec.Struct, frozen=True, tag_field="type", tag="resize"):
    """To the process: its terminal has this size now."""

    rows: Side
    cols: Side


class EndOfInput(msgspec.Struct, frozen=True, tag_field="type", tag="eof"):
    """To the process: it reads an end of file."""


class Start(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="start"):
    """The first message of a command: what to run. With `rows` and `cols` it gets a terminal."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    rows: Side = 0
    cols: Side = 0
    user: str | None = None
    working_dir: str | None = None


class Launch(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="launch"):
    """In place of `start`: what is to run without its client. It reads nothing, and what it writes is lost.

    A frame of its own, so that an older runner refuses it.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    user: str | None = None
    working_dir: str | None = None


class ShellNews(msgspec.Struct, frozen=True, tag_field="type", tag="session"):
    """To the client, first: by which number it comes back, and how many bytes were shown before."""

    session: str
    begins_at: NonNegative = 0


class InputNews(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="input"):
    """To who sends a task's input: how many bytes of it the task took; `over`: it takes no more."""

    taken: NonNegative
    over: bool = False


class ExitNews(msgspec.Struct, frozen=True, tag_field="type", tag="exit"):
    """To the client, last: how the process ended; of one that was launched 0, once it runs."""

    status: ExitCode


class ErrorNews(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="error"):
    """To the client, last: a sentence, and the code of the error in `models.errors` that it belongs to."""

    data: str
    code: str = ""


Control: TypeAlias = Resize | EndOfInput | Start | Launch | ShellNews | InputNews | ExitNews | ErrorNews

_CONTROL: msgspec.json.Decoder[Control] = msgspec.json.Decoder(Control)


def control_frame(control: Control) -> str:
    return msgspec.json.encode(control).decode()


def read_control(text: str) -> Control:
    """Raises InvalidInput for what is none."""
    try:
        return _CONTROL.decode(text)
    except RecursionError:
        raise InvalidInput("that is not a terminal frame: it is nested too deep") from None
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"that is not a terminal frame: {cut(str(error), 300)}") from error


def data_frames(flow: Flow, data: bytes) -> Iterator[bytes]:
    """Give the frames that carry `data`, none for nothing."""
    head = bytes([flow])
    for begin in range(0, len(data), MAX_DATA_BYTES):
        yield head + data[begin : begin + MAX_DATA_BYTES]


def read_data(frame: bytes) -> tuple[Flow, bytes]:
    """Raises InvalidInput for a frame that names no flow."""
    try:
        return Flow(frame[0]), frame[1:]
    except (IndexError, ValueError) as error:
        raise InvalidInput(
            "a binary frame begins with the byte 0 (input), 1 (output) or 2 (error output)"
        ) from error
