"""Connections of this machine and the streams that they become."""

import asyncio

import pytest

from kohakuriver.streams.tunnels.sockets import TcpStream
from kohakuriver.streams.tunnels.streams import TunnelStreams
from kohakuriver.wire.tunnel.end import TunnelEnd
from kohakuriver.wire.tunnel.table import Role, TunnelBounds


def test_a_connection_for_which_there_is_no_stream_is_broken_off_with_the_reason() -> None:
    async def scenario() -> None:
        refusals: list[str] = []
        streams = TunnelStreams(TunnelEnd(Role.OPENS, credit=True, bounds=TunnelBounds(streams=1)))
        server = await asyncio.get_running_loop().create_server(
            lambda: TcpStream(streams, port=80, refused=refusals.append), "127.0.0.1", 0
        )
        async with server:
            place = server.sockets[0].getsockname()
            _, first = await asyncio.open_connection(*place)
            reader, second = await asyncio.open_connection(*place)
            with pytest.raises(ConnectionError):
                await reader.read()
            assert refusals == ["1 connections are open, and no more may be"]
            assert len(streams) == 1
            for writer in (first, second):
                writer.close()
            streams.close("over")

    asyncio.run(asyncio.wait_for(scenario(), 20))
