"""What is measured over one way: streams, round trips, and new connections."""

import contextlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench.tunnel.service import DONE, ECHO, REQUEST, SEND, TAKE, send_zeros, take

Address = tuple[str, int]
_SECONDS = 60.0
_AT_ONCE = 20
_WARM_UP = 20


def stream(address: Address, asked: bytes, streams: int, mib: int) -> float:
    """Mbit/s of `mib` in all, from the first connection until the last byte has come at the other end."""
    size = (mib << 20) // streams
    began = time.perf_counter()
    with ThreadPoolExecutor(streams) as pool:
        for moved in [pool.submit(_move, address, asked, size) for _ in range(streams)]:
            moved.result()
    return size * streams * 8 / 1e6 / (time.perf_counter() - began)


def round_trips(address: Address, count: int) -> list[float]:
    """Seconds that one byte takes there and back, one at a time on one connection."""
    with _connected(address, ECHO) as connection:
        seconds = []
        for _ in range(_WARM_UP + count):
            began = time.perf_counter()
            connection.sendall(DONE)
            take(connection, 1)
            seconds.append(time.perf_counter() - began)
        return seconds[_WARM_UP:]


def connections_a_second(address: Address, count: int) -> float:
    """Of connections over which one byte goes there and back, twenty at once."""
    began = time.perf_counter()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for done in [pool.submit(_once, address) for _ in range(count)]:
            done.result()
    return count / (time.perf_counter() - began)


def _move(address: Address, asked: bytes, size: int) -> None:
    with _connected(address, asked, size) as connection:
        if asked == SEND:
            take(connection, size)
        elif asked == TAKE:
            send_zeros(connection, size)
            take(connection, len(DONE))


def _once(address: Address) -> None:
    with _connected(address, ECHO) as connection:
        connection.sendall(DONE)
        take(connection, 1)


@contextlib.contextmanager
def _connected(address: Address, asked: bytes, size: int = 0) -> Iterator[socket.socket]:
    with socket.create_connection(address, _SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(REQUEST.pack(asked, size))
        yield connection
