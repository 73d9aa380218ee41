"""Run in a workload: tells whether the workload's network is still what it was.

    python -m support.workloads.witness ADDRESS PORT   (a place outside that answers a connection with a line)

A connection over the workload's own loopback carries a byte every so often and is never made again. Whoever
connects to PORT gets, for each line, a line of JSON: what that connection has carried so far, what broke it,
and what was heard of the place outside just now.
"""

import asyncio
import json
import sys

PORT = 7100
_PAUSE_SECONDS = 0.05
_OUTSIDE_SECONDS = 10.0


class Loopback:
    """`carried`: bytes that came back so far."""

    def __init__(self) -> None:
        self.carried = 0
        self.broken = ""

    async def run(self) -> None:
        server = await asyncio.start_server(_echo, "127.0.0.1", 0)
        try:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            while True:
                writer.write(b".")
                self.carried += len(await reader.readexactly(1))
                await asyncio.sleep(_PAUSE_SECONDS)
        except (OSError, EOFError) as error:
            self.broken = repr(error)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)


async def _outside(address: str, port: int) -> str:
    try:
        async with asyncio.timeout(_OUTSIDE_SECONDS):
            reader, writer = await asyncio.open_connection(address, port)
            heard = await reader.readline()
            writer.close()
    except (OSError, TimeoutError) as error:
        return repr(error)
    return heard.decode()


async def main(address: str, port: int) -> None:
    loopback = Loopback()

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            outside = await _outside(address, port)
            told = {"carried": loopback.carried, "broken": loopback.broken, "outside": outside}
            writer.write(json.dumps(told).encode() + b"\n")

    await asyncio.start_server(tell, "127.0.0.1", PORT)
    print("ready")
    await loopback.run()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
