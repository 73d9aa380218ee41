"""TCP connections that begin within a sandbox's network namespace, where its loopback can be reached.

A socket belongs to the namespace in which it was made, whoever uses it later. So a thread enters the
namespace, makes the socket and ends: nothing else ever runs in a thread that has been in there.
"""

import asyncio
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kohakuriver.files.system.calls import CLONE_NEWNET, setns
from kohakuriver.models.errors import Unavailable
from kohakuriver.runner.engines.docker.kernel.netns_state import ProcessMark, is_alive

LOOPBACK = "127.0.0.1"
_PROC = Path("/proc")


async def dial_loopback(mark: ProcessMark, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a port inside; raises OSError as connections do, Unavailable where there is no way in."""
    loop = asyncio.get_running_loop()
    thread = ThreadPoolExecutor(1, thread_name_prefix="dial")
    try:
        inside = await loop.run_in_executor(thread, _socket_inside, mark)
    finally:
        thread.shutdown(wait=False)
    try:
        await loop.sock_connect(inside, (LOOPBACK, port))
        return await asyncio.open_connection(sock=inside)
    except BaseException:
        inside.close()
        raise


def _socket_inside(mark: ProcessMark) -> socket.socket:
    try:
        namespace = os.open(_PROC / str(mark.pid) / "ns" / "net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Looked at once it is open: the number may have become another process's before.
            if os.fstat(namespace).st_ino != mark.netns_inode or not is_alive(mark):
                raise Unavailable("the workload's network has just ended")
            setns(namespace, CLONE_NEWNET)
        finally:
            os.close(namespace)
    except FileNotFoundError as error:
        raise Unavailable("the workload's network has just ended") from error
    except PermissionError as error:
        raise Unavailable(
            "this runner may not enter the network of its VPSs, so nobody gets in by SSH; run it as root"
        ) from error
    inside = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    inside.setblocking(False)
    return inside
