"""How both daemons serve HTTP: a socket bound before anything else starts, and uvicorn in our own loop, with
protocols of our own (`front_door`), until a signal comes.
"""

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import uvicorn

from kohakuriver.front_door import ConnectionLimits, Connections, GuardedHttpProtocol
from kohakuriver.models.errors import Unavailable

_BACKLOG = 2048
_IP_FREEBIND = 15  # of <linux/in.h>; the standard library does not name it

_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
"""In seconds, and how often; connections have these from the listener."""

KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep idle connections (60 s): otherwise a request now and then meets a closing one."""


def bind_listener(address: str, port: int, setting: str, *, may_be_absent: bool = False) -> socket.socket:
    """Return a listening socket; raises Unavailable naming the address, the port and its setting.

    `may_be_absent`: it is bound to an IPv4 address that this machine need not have, now or later.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if may_be_absent:
            listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        for option, value in _KEEP_ALIVE:
            listener.setsockopt(socket.IPPROTO_TCP, option, value)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Unavailable(
                f"port {port} on {address} is taken by another program; end that or change {setting}"
            ) from error
        raise Unavailable(f"cannot listen on {address} port {port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


class ApiServer(uvicorn.Server):
    """uvicorn that leaves signals to the daemon, ends within `shutdown_seconds` of `should_exit`, and gives
    strangers no more than `limits` (`kohakuriver.front_door`).
    """

    def __init__(self, app: Any, shutdown_seconds: int, limits: ConnectionLimits | None = None) -> None:
        self.connections = Connections(limits or ConnectionLimits())
        super().__init__(
            uvicorn.Config(
                app,
                loop="none",
                http=partial(GuardedHttpProtocol, self.connections),  # type: ignore[arg-type]
                ws="websockets-sansio",
                ws_per_message_deflate=False,
                ws_max_size=1 << 20,
                # A client that is held back cannot answer until it is read again, however long that takes;
                # that it is gone is what the kernel finds out.
                ws_ping_timeout=None,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                proxy_headers=False,
                timeout_graceful_shutdown=shutdown_seconds,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_until_signal(
    servers: Sequence[tuple[ApiServer, socket.socket]],
    jobs: list[Coroutine[Any, Any, None]],
    ending: AbstractContextManager[None],
) -> None:
    """Serve, with the other parts beside it, until a signal comes; a part that fails ends everything.

    `ending` is entered when the signal has come, and left when the last request is answered; then the other
    parts are cancelled.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with asyncio.TaskGroup() as group:
        background = [group.create_task(job) for job in jobs]
        serving = [group.create_task(server.serve(sockets=[listener])) for server, listener in servers]
        await stopped.wait()
        with ending:
            for server, _ in servers:
                server.should_exit = True
            await asyncio.gather(*serving)
        for task in background:
            task.cancel()
