"""One shell that outlives its clients: what it shows is kept, and one client at a time looks at it.

Rules: a client that is there loses nothing, so one that does not read holds the shell back; without a
client the shell goes on, and of what it shows the last `KEPT_BYTES` stay. A new client takes over, and the
one before it is told.
"""

import asyncio
from dataclasses import dataclass, field

from kohakuriver.broadcast import Broadcast
from kohakuriver.models.enums import Flow
from kohakuriver.models.errors import Conflict, KohakuRiverError
from kohakuriver.runner.engines.contract.processes import Process
from kohakuriver.streams.process_frames import feed
from kohakuriver.streams.pumping import first_to_end
from kohakuriver.wire.channel import Channel
from kohakuriver.wire.terminal_frames import ExitNews, ShellNews, control_frame, data_frames


class Shown:
    """What a terminal has shown: its last bytes, and where among all of them each lies.

    Positions count all bytes that were ever added; the last `most_bytes` of them are here."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._kept = bytearray()
        self._begin = 0

    @property
    def begin(self) -> int:
        """Position of the oldest byte that is here."""
        return self._begin

    @property
    def end(self) -> int:
        return self._begin + len(self._kept)

    def add(self, data: bytes) -> None:
        self._kept += data
        if (excess := len(self._kept) - self._most) > 0:
            del self._kept[:excess]
            self._begin += excess

    def since(self, position: int, most: int) -> bytes:
        """Return at most that many bytes from there on; the position is within `begin` and `end`."""
        offset = position - self._begin
        return bytes(self._kept[offset : offset + most])


KEPT_BYTES = 256 << 10
_UNSEEN_BYTES = KEPT_BYTES // 2
"""How far a client may be behind the shell before the shell is held back."""

_PIECE_BYTES = 65536


@dataclass(slots=True, eq=False)
class _Client:
    position: int
    replaced: asyncio.Event = field(default_factory=asyncio.Event)

    async def until_replaced(self) -> None:
        await self.replaced.wait()
        raise Conflict("another client took over this terminal session")


class Shell:
    """`run` is its life, which whoever made it runs; `serve` may be called any number of times meanwhile."""

    def __init__(self, shell_id: str, process: Process, idle_seconds: float) -> None:
        self.id = shell_id
        self._process = process
        self._idle_seconds = idle_seconds
        # A client may begin KEPT_BYTES before the end while a piece is on its way in.
        self._shown = Shown(KEPT_BYTES + _PIECE_BYTES)
        self._client: _Client | None = None
        self._left_at = asyncio.get_running_loop().time()
        self._end: ExitNews | KohakuRiverError | None = None
        self._is_over = False
        self._news = Broadcast()

    @property
    def has_ended(self) -> bool:
        """Its shell is gone; what it showed may still be here for who comes back."""
        return self._end is not None

    @property
    def is_over(self) -> bool:
        """Nobody can be served any more."""
        return self._is_over

    @property
    def shown_bytes(self) -> int:
        """How much it has shown since it began."""
        return self._shown.end

    async def run(self) -> None:
        """Return when it is over: its end is known to a client, it was hung up, or nobody came back."""
        keeping = asyncio.ensure_future(self._keep_output())
        try:
            await self._until_over()
        finally:
            self.hang_up()
            keeping.cancel()
            await asyncio.wait([keeping])
            await asyncio.shield(self._process.close())

    async def serve(self, channel: Channel, seen: int = 0) -> None:
        """Serve one client until it goes or the shell ends; raises Conflict when another takes over.

        `seen`: position up to which it knows what was shown.
        """
        begin = max(self._shown.begin, self._shown.end - KEPT_BYTES)
        client = _Client(min(max(begin, seen), self._shown.end))
        if self._client is not None:
            self._client.replaced.set()
        self._client = client
        self._news.wake_all()
        try:
            await channel.send(control_frame(ShellNews(self.id, client.position)))
            await first_to_end(
                self._show(client, channel), feed(self._process, channel), client.until_replaced()
            )
        finally:
            if self._client is client:
                self._client = None
                self._left_at = asyncio.get_running_loop().time()
                self._news.wake_all()

    def hang_up(self) -> None:
        self._is_over = True
        self._news.wake_all()

    async def _until_over(self) -> None:
        while not self._is_over:
            if isinstance(self._end, KohakuRiverError) and self._client is None:
                return  # its workload is gone, so there is nothing to come back to
            deadline = None if self._client else self._left_at + self._idle_seconds
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                if self._client is None:
                    return

    async def _keep_output(self) -> None:
        try:
            while (piece := await self._process.read()) is not None:
                self._shown.add(piece[1])
                self._news.wake_all()
                while self._client is not None and self._shown.end - self._client.position > _UNSEEN_BYTES:
                    await self._news.wait()
            self._end = ExitNews(await self._process.exit_status())
        except KohakuRiverError as error:
            self._end = error
        self._news.wake_all()

    async def _show(self, client: _Client, channel: Channel) -> None:
        while True:
            data = self._shown.since(client.position, _PIECE_BYTES)
            if data:
                for frame in data_frames(Flow.OUTPUT, data):
                    await channel.send(frame)
                client.position += len(data)
                self._news.wake_all()
            elif self._end is not None:
                return await self._tell_end(self._end, channel)
            elif self._is_over:
                raise Conflict("this terminal session was ended by the node")
            else:
                await self._news.wait()

    async def _tell_end(self, end: ExitNews | KohakuRiverError, channel: Channel) -> None:
        if isinstance(end, KohakuRiverError):
            raise end
        await channel.send(control_frame(end))
        self._is_over = True
