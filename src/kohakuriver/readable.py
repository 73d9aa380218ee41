"""Waiting for a descriptor that is not a stream of asyncio's: a pidfd, a watch of the kernel, a listener."""

import asyncio


async def until_readable(descriptor: int) -> None:
    """Return once there is something to read; nothing of it is read. One waiter for a descriptor."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
