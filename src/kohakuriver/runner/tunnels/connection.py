"""One proven connection of a sandbox: its frames, and whether the client at its other end still lives."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, Protocol

from kohakuriver.models.errors import InvalidInput, KohakuRiverError, Unavailable
from kohakuriver.wire.tunnel.end import TunnelEnd
from kohakuriver.wire.tunnel.life import Due, Life
from kohakuriver.wire.tunnel.table import Role

NOT_GOOD = 1008
"""Close codes of WebSockets: what came breaks the rules, and the other end may connect again."""
COME_AGAIN = 1012
_CLOSE_SECONDS = 2.0


class TunnelSocket(Protocol):
    async def receive(self) -> str | bytes | None:
        """Return the next message, None when there will be no more."""

    async def send(self, message: str | bytes) -> None:
        """Raises Unavailable once the other end is gone."""

    async def close(self, code: int) -> None: ...


class TunnelConnection:
    """`run` once; `end` has it stop."""

    def __init__(self, socket: TunnelSocket, life: Callable[[float], Life]) -> None:
        self._socket = socket
        self._frames = TunnelEnd(Role.OPENS, credit=True)
        self._clock = asyncio.get_running_loop().time
        self._life = life(self._clock())
        self._until = asyncio.timeout(None)

    def end(self) -> None:
        self._until.reschedule(self._clock())

    async def run(self) -> str:
        """Serve until it is over; returns why it is."""
        code, reason = COME_AGAIN, "it was ended here"
        try:
            async with self._until:
                await self._talk()
        except TimeoutError:
            pass
        except KohakuRiverError as error:
            reason = str(error)
            code = NOT_GOOD if isinstance(error, InvalidInput) else COME_AGAIN
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._socket.close(code)
        return reason

    async def _talk(self) -> NoReturn:
        while True:
            frame = await self._next()
            self._life.heard(self._clock())
            self._frames.receive(frame)
            await self._write()

    async def _next(self) -> bytes:
        while True:
            try:
                async with asyncio.timeout_at(self._life.wakes_at()):
                    message = await self._socket.receive()
            except TimeoutError:
                await self._look()
                continue
            if message is None:
                raise Unavailable("the client is gone")
            if isinstance(message, str):
                raise InvalidInput("what came is no frame")
            return message

    async def _look(self) -> None:
        due = self._life.due(self._clock())
        if due is Due.END:
            raise Unavailable("nothing was heard for too long")
        if due is Due.PING:
            self._frames.ping()
            await self._write()

    async def _write(self) -> None:
        try:
            async with asyncio.timeout(self._life.end_after):
                while (frame := self._frames.next_frame()) is not None:
                    await self._socket.send(frame[1])
        except TimeoutError as error:
            raise Unavailable("nothing was taken for too long") from error
