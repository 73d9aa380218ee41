"""A process of somebody else on the host's port: it keeps what comes, and answers as it was told."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Reply = Callable[[bytes], bytes]


def http_answer(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Impostor:
    """`heard` is every byte that it was sent. `reply` makes an answer of each piece that came."""

    def __init__(self, port: int, reply: Reply) -> None:
        self._lock = threading.Lock()
        self._heard = b""
        self._reply = reply
        self._listener = socket.create_server(("127.0.0.1", port), reuse_port=False)
        self.port: int = self._listener.getsockname()[1]
        self._over = False
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    @property
    def heard(self) -> bytes:
        with self._lock:
            return self._heard

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._over = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._begin(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        with connection, suppress(OSError):
            while data := connection.recv(65536):
                with self._lock:
                    self._heard += data
                connection.sendall(self._reply(data))


@contextmanager
def impostor(reply: Reply, port: int = 0) -> Iterator[Impostor]:
    somebody = Impostor(port, reply)
    try:
        yield somebody
    finally:
        somebody.close()
