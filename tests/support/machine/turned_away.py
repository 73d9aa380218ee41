"""A listener behind which nobody speaks: whoever connects is let go of at once."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def turned_away(listener: socket.socket) -> Iterator[None]:
    """Turn away all who come, for as long as the body runs; the listener stays the caller's to close."""
    thread = threading.Thread(target=_turn_away, args=(listener,))
    thread.start()
    yield
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def _turn_away(listener: socket.socket) -> None:
    while True:
        try:
            listener.accept()[0].close()
        except OSError:
            return
