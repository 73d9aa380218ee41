"""The program of the pipe keeper: holds open descriptors for a runner that may be killed; see `pipe_keeper`.

It is run by its path, by an interpreter that loads nothing else, and stays small: nothing here but the
standard library. Arguments: the number of a listening SOCK_SEQPACKET socket, and that socket's path.

Protocol, one datagram each. To a new client it sends what it keeps: names, one a line, in as many datagrams
as it takes, then `.`. The client says `keep NAME` with descriptors (the older ones of that name are closed)
or `drop NAME`, which have no answer, or `take NAME`; the answer to that is `kept` with copies of the
descriptors, or `none`, as to whatever is no request.

While a client is there it waits for nothing else. Without one, it looks now and then whether it is needed:
pipes that are empty and that nobody can write any more are let go of, and with nothing left to keep, or with
another socket at its path or none, it ends.
"""

import os
import resource
import select
import selectors
import socket
import sys
from collections.abc import Iterable

MOST_BYTES = 32 << 10
MOST_DESCRIPTORS = 8
_BACKLOG_SECONDS = 1.0  # how long a client may leave what is sent to it unread
PATROL_SECONDS = 10.0


class Keeper:
    """Serves until it is not needed any more."""

    def __init__(self, listener: socket.socket, path: str) -> None:
        self._listener = listener
        self._path = path
        self._own_inode = _inode(path)
        self._kept: dict[bytes, list[int]] = {}
        self._clients: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    def run(self) -> None:
        while True:
            events = self._selector.select(None if self._clients else PATROL_SECONDS)
            ready = {key.fileobj for key, _ in events}
            # Who comes is told what those before have said, so these are heard to the end first.
            for client in self._clients & ready:
                self._serve(client)
            if ready == {self._listener}:
                self._greet()
            if not ready and not self._is_needed():
                return

    def _greet(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # it has left, or no descriptor is free: no reason to lose what is kept
        client.settimeout(_BACKLOG_SECONDS)
        self._clients.add(client)
        self._selector.register(client, selectors.EVENT_READ)
        try:
            for part in _parts(self._kept):
                client.send(part)
            client.send(b".")
        except OSError:
            self._leave(client)

    def _serve(self, client: socket.socket) -> None:
        try:
            message, descriptors, _, _ = socket.recv_fds(client, MOST_BYTES, MOST_DESCRIPTORS)
            if message:
                self._obey(client, message, descriptors)
            else:
                self._leave(client)
        except OSError:
            self._leave(client)

    def _obey(self, client: socket.socket, message: bytes, descriptors: list[int]) -> None:
        verb, _, name = message.partition(b" ")
        if verb == b"keep":
            self._drop(name)
            self._kept[name] = descriptors
            return
        _close(descriptors)
        if verb == b"drop":
            self._drop(name)
        elif verb == b"take" and name in self._kept:
            socket.send_fds(client, [b"kept"], self._kept[name])
        else:
            client.send(b"none")

    def _drop(self, name: bytes) -> None:
        _close(self._kept.pop(name, []))

    def _leave(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        self._clients.discard(client)
        client.close()

    def _is_needed(self) -> bool:
        for name in [name for name, descriptors in self._kept.items() if not any(map(_has_use, descriptors))]:
            self._drop(name)
        return bool(self._kept) and _inode(self._path) == self._own_inode


def _parts(names: Iterable[bytes]) -> list[bytes]:
    """Lines of names in pieces that a datagram can hold."""
    parts: list[bytes] = []
    for name in names:
        if parts and len(parts[-1]) + len(name) < MOST_BYTES:
            parts[-1] += b"\n" + name
        else:
            parts.append(name)
    return parts


def _has_use(descriptor: int) -> bool:
    """Whether a pipe holds something, or somebody can still write it."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    events = poll.poll(0)
    return not events or bool(events[0][1] & select.POLLIN)


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def main() -> None:
    number, path = sys.argv[1:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Keeper(socket.socket(fileno=int(number)), path).run()


if __name__ == "__main__":
    main()
