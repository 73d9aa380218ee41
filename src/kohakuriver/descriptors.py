"""Descriptors that are neither streams of asyncio's nor files of Python's: waiting for one, and writing to
one. And how many a process may have.
"""

import asyncio
import contextlib
import os
import resource

_MOST_DESCRIPTORS = 1 << 16


def allow_many_connections() -> None:
    """Raise this process's limit of open files as far as it may be: 1,000 runners and as many followers, or
    what a tunnel carries, are more than the usual 1,024 or 256.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # of a kernel that has a lower limit besides
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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
