"""Run in a workload: a service that has much to say in each of many connections, and others to go by.

FLOOD says nothing until it is let go, then what `said` gives. ECHO says what it is told. SINK reads nothing.
CONTROL is told a line and answers with one, which is how many bytes of FLOOD were taken: `open N` once FLOOD
and SINK have had N connections, `go` lets FLOOD go on, `rest` once nobody takes anything any more.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

FLOOD, ECHO, SINK, CONTROL = 7000, 7001, 7002, 7003
EACH_BYTES = 1_200_000
_BLOCK = bytes(range(250)) * (EACH_BYTES // 250)
_PIECE_BYTES = 16 << 10
_UNSENT_BYTES = 64 << 10
_REST_SECONDS = 1.0


def said(number: int) -> bytes:
    """All that is said in the connection of that number; they are counted from 0."""
    return number.to_bytes(8, "big") + _BLOCK[8:]


class Flood:
    def __init__(self) -> None:
        self._taken = 0
        self._opened = 0
        self._changed = asyncio.Condition()
        self._may_go = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, port: int, serve: Callable[[socket.socket, int], Awaitable[None]]) -> None:
        """By bare sockets: what waits is the service's own block, and not a copy for each connection."""
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSENT_BYTES)
            while True:
                connection, _ = await loop.sock_accept(listener)
                serving = asyncio.ensure_future(serve(connection, self._opened))
                self._serving.add(serving)
                serving.add_done_callback(self._serving.discard)
                self._opened += 1
                async with self._changed:
                    self._changed.notify_all()

    async def pour(self, connection: socket.socket, number: int) -> None:
        loop = asyncio.get_running_loop()
        with connection, contextlib.suppress(ConnectionError):
            await self._may_go.wait()
            for block in (number.to_bytes(8, "big"), memoryview(_BLOCK)[8:]):
                for at in range(0, len(block), _PIECE_BYTES):
                    await loop.sock_sendall(connection, block[at : at + _PIECE_BYTES])
                    self._taken += _PIECE_BYTES

    async def ignore(self, connection: socket.socket, _number: int) -> None:
        with connection:
            await asyncio.Event().wait()

    async def told(self, word: str, number: int) -> int:
        if word == "open":
            async with self._changed:
                await self._changed.wait_for(lambda: self._opened >= number)
        elif word == "go":
            self._may_go.set()
        else:
            before = -1
            while before != self._taken:
                before = self._taken
                await asyncio.sleep(_REST_SECONDS)
        return self._taken


async def main() -> None:
    flood = Flood()

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := (await reader.readline()).decode():
            word, _, number = line.strip().partition(" ")
            writer.write(b"%d\n" % await flood.told(word, int(number or 0)))

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_PIECE_BYTES):
                writer.write(data)
                await writer.drain()
        writer.close()

    await asyncio.start_server(control, "127.0.0.1", CONTROL)
    await asyncio.start_server(echo, "127.0.0.1", ECHO, backlog=1024)
    print("ready")
    async with asyncio.TaskGroup() as group:
        group.create_task(flood.serve(FLOOD, flood.pour))
        group.create_task(flood.serve(SINK, flood.ignore))


if __name__ == "__main__":
    asyncio.run(main())
