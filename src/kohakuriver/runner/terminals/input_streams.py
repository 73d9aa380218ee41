"""The stream over which a task's standard input is sent while it runs (`/ws/task/{task_id}/stdin`).

The runner says first, and then whenever it took more, how many bytes it has (`InputNews`); the other end
sends what comes after them, and `eof` after the last. Whoever connects later takes over.
"""

from collections.abc import Callable, Mapping

from kohakuriver.models.enums import Flow
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.ids import TaskId, parse_task_id
from kohakuriver.runner.agent.life.attempt_input import AttemptInput
from kohakuriver.runner.api.streams import StreamCall, StreamHandler
from kohakuriver.streams.pumping import first_to_end
from kohakuriver.wire.channel import Channel
from kohakuriver.wire.terminal_frames import EndOfInput, InputNews, control_frame, read_control, read_data

INPUT_PATH = "/ws/task/{task_id}/stdin"


class InputStreams:
    """`input_of`: that of the attempt of a task that is under way; raises NotFound if there is none."""

    def __init__(self, input_of: Callable[[TaskId], AttemptInput]) -> None:
        self._input_of = input_of

    def handlers(self) -> Mapping[str, StreamHandler]:
        return {INPUT_PATH: self.serve}

    async def serve(self, call: StreamCall, channel: Channel) -> None:
        taker = self._input_of(parse_task_id(call.path["task_id"]))
        with taker.sent_by(channel):
            await first_to_end(_take(taker, channel), _tell(taker, channel))


async def _take(taker: AttemptInput, channel: Channel) -> None:
    """Until the other end is gone. What comes when it is over is taken and forgotten."""
    while (message := await channel.receive()) is not None:
        if isinstance(message, bytes):
            flow, data = read_data(message)
            if flow is not Flow.INPUT:
                raise InvalidInput("input begins with the byte 0")
            await taker.put(channel, data)
        elif isinstance(read_control(message), EndOfInput):
            taker.complete(channel)
        else:
            raise InvalidInput("input takes data and the frame eof")


async def _tell(taker: AttemptInput, channel: Channel) -> None:
    """Until it is over, which is told as well."""
    told, is_over = -1, False
    while not is_over:
        await taker.news(told)
        told, is_over = taker.taken, taker.is_over
        await channel.send(control_frame(InputNews(told, is_over)))
