"""What a daemon sends over a WebSocket arrives as it was, whatever its size, and in its order."""

from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from kohakuriver.front_door.websocket_protocol import LARGE_BYTES
from support.messages.raw_http import serving

pytestmark = pytest.mark.anyio

SIZES = (0, 1, 125, 126, LARGE_BYTES - 1, LARGE_BYTES, 65535, 65536, 300_000)


async def test_messages_of_all_sizes_arrive_in_order() -> None:
    sent: list[str | bytes] = []
    for number, size in enumerate(SIZES):
        sent += [bytes([number]) * size, f"after {size}"]

    async def say_all(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for message in sent:
            await send({"type": "websocket.send", "text" if isinstance(message, str) else "bytes": message})
        await send({"type": "websocket.close"})

    async with serving(say_all) as (address, _), connect(f"ws://{address}/") as client:
        assert [message async for message in client] == sent


@pytest.mark.parametrize("size", [LARGE_BYTES - 1, LARGE_BYTES])
async def test_who_sends_to_one_that_is_gone_is_told(size: int) -> None:
    told: list[bool] = []

    async def say_after_the_end(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        try:
            await send({"type": "websocket.send", "bytes": bytes(size)})
        except OSError:
            told.append(True)

    async with serving(say_after_the_end) as (address, _):
        async with connect(f"ws://{address}/") as client:
            await client.close()
        with pytest.raises(ConnectionClosed):
            await client.recv()
    assert told == [True]


async def test_a_message_before_the_handshake_is_refused_whatever_its_size() -> None:
    refused: list[str] = []

    async def say_too_early(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for size in (1, LARGE_BYTES):
            try:
                await send({"type": "websocket.send", "bytes": bytes(size)})
            except RuntimeError as error:
                refused.append(str(error)[:8])
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    async with serving(say_too_early) as (address, _), connect(f"ws://{address}/") as client:
        assert [message async for message in client] == []
    assert refused == ["Expected", "Expected"]
