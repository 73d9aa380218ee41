"""Descriptors that are neither streams of asyncio's nor files of Python's: waiting for one, and writing to
one.
"""

import asyncio
import os


async def until_readable(descriptor: int) -> None:
    """Return once a pidfd, a watch of the kernel or a listener has something to read; nothing of it is read.
    One waiter for a descriptor.
    """
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


def write_all(descriptor: int, data: bytes | memoryview, place: int | None = None) -> None:
    """Write all of it, where the kernel takes a part each time. `place`: there, and not where the last write
    ended.
    """
    rest = memoryview(data)
    while rest:
        written = os.write(descriptor, rest) if place is None else os.pwrite(descriptor, rest, place)
        rest = rest[written:]
        place = None if place is None else place + written
