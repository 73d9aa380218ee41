"""Directions of a stream that run beside each other until the first of them ends."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from kohakuriver.wire.channel import Channel


async def carry(source: Channel, sink: Channel) -> None:
    """Send on what comes, one message at a time, until the source ends in order."""
    while (message := await source.receive()) is not None:
        await sink.send(message)


async def first_to_end(*directions: Coroutine[Any, Any, None]) -> None:
    """Run all until one ends, then end the others; raises what that one raised."""
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(direction) for direction in directions]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task in done:
            task.result()
