"""The runner's streams of terminals and commands; their messages are those of `wire.terminal_frames`.

`/ws/task/{task_id}/terminal`: a shell that outlives its client. Query: `rows`, `cols`; `session` and `seen`
of a client that comes back; `keep=no`: the shell ends with this client.
`/ws/task/{task_id}/exec`: one command, said by the first message: `start` for one that ends with its client,
`launch` for one that does not. `user=own`: as the workload's own user and no other.
"""

import asyncio
from collections.abc import Callable, Mapping

from kohakuriver.models.errors import Denied, InvalidInput
from kohakuriver.models.ids import TaskId, parse_task_id
from kohakuriver.models.numbers import whole_number
from kohakuriver.runner.api.streams import StreamCall, StreamHandler
from kohakuriver.runner.engines.contract.engine import Engine
from kohakuriver.runner.engines.contract.processes import ExecRequest
from kohakuriver.runner.terminals.numbered_shells import Shells
from kohakuriver.streams.process_frames import feed, tell
from kohakuriver.streams.pumping import first_to_end
from kohakuriver.wire.channel import Channel
from kohakuriver.wire.terminal_frames import ExitNews, Launch, Start, control_frame, read_control

_FIRST_MESSAGE_SECONDS = 15.0
_ROWS, _COLS = 24, 80


class TerminalStreams:
    """`engine_of` gives the open engine of a task and raises Unavailable before there is one."""

    def __init__(self, engine_of: Callable[[TaskId], Engine]) -> None:
        self._engine_of = engine_of
        self.shells = Shells(engine_of)

    def handlers(self) -> Mapping[str, StreamHandler]:
        return {"/ws/task/{task_id}/terminal": self.terminal, "/ws/task/{task_id}/exec": self.execute}

    async def terminal(self, call: StreamCall, channel: Channel) -> None:
        task_id = parse_task_id(call.path["task_id"])
        if number := call.query.get("session"):
            shell = self.shells.find(task_id, number)
        else:
            rows, cols = _whole(call, "rows", _ROWS), _whole(call, "cols", _COLS)
            shell = await self.shells.begin(task_id, rows, cols)
        try:
            await shell.serve(channel, _whole(call, "seen", 0))
        finally:
            if call.query.get("keep") == "no":
                shell.hang_up()

    async def execute(self, call: StreamCall, channel: Channel) -> None:
        task_id = parse_task_id(call.path["task_id"])
        request, is_launched = await _request_from(channel)
        if request.user is not None and call.query.get("user") == "own":
            raise Denied(
                "commands in a command task run as its own user; another one needs the role operator"
            )
        if is_launched:
            await self._engine_of(task_id).processes.launch(task_id, request)
            return await channel.send(control_frame(ExitNews(0)))
        process = await self._engine_of(task_id).processes.open(task_id, request)
        try:
            await first_to_end(tell(process, channel), feed(process, channel))
        finally:
            await asyncio.shield(process.close())

    async def close(self) -> None:
        """Hang up the shells of all sessions; before the engine is let go."""
        await self.shells.close()


async def _request_from(channel: Channel) -> tuple[ExecRequest, bool]:
    """Return what is to run, and whether without its client."""
    try:
        async with asyncio.timeout(_FIRST_MESSAGE_SECONDS):
            message = await channel.receive()
    except TimeoutError as error:
        raise InvalidInput("nobody said in time what is to be run") from error
    start = read_control(message) if isinstance(message, str) else None
    if not isinstance(start, Start | Launch) or not start.argv or not start.argv[0]:
        raise InvalidInput("the first frame must be a `start` or `launch` that says what is to be run (argv)")
    texts = (*start.argv, *(text for pair in start.env for text in pair))
    if any("\0" in text for text in texts) or any("=" in name or not name for name, _ in start.env):
        raise InvalidInput("a command's words hold no NUL, and names of variables neither that nor a '='")
    if isinstance(start, Launch):
        request = ExecRequest(start.argv, start.env, user=start.user, working_dir=start.working_dir)
        return request, True
    request = ExecRequest(start.argv, start.env, start.rows, start.cols, start.user, start.working_dir)
    return request, False


def _whole(call: StreamCall, name: str, default: int) -> int:
    text = call.query.get(name, "")
    if not text:
        return default
    number = whole_number(text)
    if number is None:
        raise InvalidInput(f"{name} must be a whole number, not {text[:40]!r}", field=name)
    return number
