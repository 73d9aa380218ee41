"""A proxy before a host that answers for it with an error of its own, or cuts answers short, when it is told.

It passes bytes on as they come, so that proofs and streams go through; it never says more than it has to.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PAGE = b"<html><h1>upstream is down: Bearer shown-by-a-proxy</h1></html>"
_READ_BYTES = 65536


class FailingProxy:
    """`fail_with(status)`: answers so itself; `cut_answers()`: half of what the host says gets through."""

    def __init__(self, target_port: int) -> None:
        self.failures = 0
        """Requests that it did not pass on whole since it was told to fail."""
        self._target_port = target_port
        self._status: int | None = None
        self._cuts = False
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def fail_with(self, status: int) -> None:
        self._change(status=status)

    def cut_answers(self) -> None:
        self._change(cuts=True)

    def recover(self) -> None:
        self._change()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self._drop()

    def _change(self, status: int | None = None, *, cuts: bool = False) -> None:
        with self._lock:
            self._status, self._cuts, self.failures = status, cuts, 0
        self._drop()

    def _drop(self) -> None:
        with self._lock:
            opened, self._open = self._open, []
        for connection in opened:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            first = client.recv(_READ_BYTES)
            if not first:
                return
            if self._status is not None:
                with self._lock:
                    self.failures += 1
                client.sendall(b"HTTP/1.1 %d Away\r\nConnection: close\r\n\r\n%s" % (self._status, _PAGE))
                return
            with socket.create_connection(("127.0.0.1", self._target_port)) as host:
                with self._lock:
                    self._open.append(host)
                host.sendall(first)
                back = threading.Thread(target=self._answer, args=(host, client), daemon=True)
                back.start()
                while data := client.recv(_READ_BYTES):
                    host.sendall(data)
                host.shutdown(socket.SHUT_RDWR)
                back.join()

    def _answer(self, host: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := host.recv(_READ_BYTES):
                if self._cuts:
                    with self._lock:
                        self.failures += 1
                    client.sendall(data[: len(data) // 2])
                    break
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextmanager
def failing_proxy(target_port: int) -> Iterator[FailingProxy]:
    proxy = FailingProxy(target_port)
    try:
        yield proxy
    finally:
        proxy.close()
