"""Keeps descriptors of pipes beyond the runner's death: a small process of its own holds copies of them.

A pipe's content lives as long as somebody has it open. The engine can be away, the container can end and
the runner can be killed at the same time; so that somebody is left, a process that does nothing else is
started with the runner, in a session of its own, and outlives it as the workloads do. The next runner finds
it by its socket in the state folder and takes the descriptors back. It ends by itself, see its program
(`pipe_keeper_process`). If it cannot be started or was killed nothing fails: then only the runner holds the
pipes, and what is given next starts another.

Everything here blocks, for microseconds, or milliseconds when the process is to be started; it belongs in a
thread, and any thread may call.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import structlog

from kohakuriver.runner.engines.docker.output import pipe_keeper_process

_SOCKET_NAME = "pipes.sock"
ANSWER_SECONDS = 5.0
_BACKLOG = 16

_log = structlog.get_logger()


class PipeKeeper:
    """The runner's end of it; `folder` is private to this runner. `close` leaves the process to itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._names: set[str] = set()
        self._told = False

    def open(self, names: Collection[str]) -> None:
        """Find the process or start it, and have nothing kept but what has one of these names."""
        with self._lock:
            try:
                self._connect_or_start()
            except OSError as error:
                self._forget(error)
            for name in self._names.difference(names):
                self._drop(name)

    def keep(self, name: str, descriptors: Sequence[int]) -> None:
        """Have copies of the descriptors kept, in place of what has that name."""
        message = [f"keep {name}".encode()]
        with self._lock:
            # The one that was there may have been killed; a new one is told the same.
            for _ in range(2):
                try:
                    socket.send_fds(self._connect_or_start(), message, descriptors)
                except OSError as error:
                    self._forget(error)
                    continue
                self._names.add(name)
                self._told = False
                return

    def take(self, name: str) -> list[int]:
        """Return descriptors that are the caller's to close; empty if none are kept under that name."""
        with self._lock:
            try:
                connection = self._connected()
                if connection is None or name not in self._names:
                    return []
                connection.send(f"take {name}".encode())
                return _descriptors_from(connection)
            except OSError as error:
                self._forget(error)
                return []

    def drop(self, name: str) -> None:
        """They are not needed any more."""
        with self._lock:
            self._drop(name)

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def _drop(self, name: str) -> None:
        if self._socket is None or name not in self._names:
            return
        self._names.discard(name)
        try:
            self._socket.send(f"drop {name}".encode())
        except OSError as error:
            self._forget(error)

    def _connect_or_start(self) -> socket.socket:
        connection = self._connected()
        if connection is None:
            self._start()
            connection = self._connected()
        if connection is None:
            raise ConnectionRefusedError("the pipe keeper ended as it was started")
        return connection

    def _connected(self) -> socket.socket | None:
        """The connection to the process that is there; None if there is none."""
        if self._socket is None:
            connection = _new_socket()
            try:
                with _short(self._folder) as path:
                    connection.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                connection.close()
                return None
            self._socket = connection
            self._names = _greeting(connection)
        return self._socket

    def _start(self) -> None:
        """The socket listens before the process runs, so that one can connect at once."""
        self._remove_path()
        with _new_socket() as listener, _short(self._folder) as path:
            listener.bind(path)
            os.chmod(path, 0o600)
            listener.listen(_BACKLOG)
            if self._process is not None:
                self._process.poll()  # reaps the one before
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", pipe_keeper_process.__file__),
                    *(str(listener.fileno()), str(self._folder / _SOCKET_NAME)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                cwd="/",
                start_new_session=True,
            )

    def _forget(self, error: OSError) -> None:
        if not self._told:  # where the folder takes no socket, this would be said of each container
            _log.warning("pipe_keeper_away", error=str(error))
        self._told = True
        self._disconnect()
        if isinstance(error, TimeoutError):
            self._remove_path()  # it hangs, and is not asked again: another takes its place

    def _remove_path(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._folder / _SOCKET_NAME)

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._names = set()


def _new_socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.settimeout(ANSWER_SECONDS)
    return made


def _greeting(connection: socket.socket) -> set[str]:
    """The names that are kept, as a new client is told them."""
    names: set[str] = set()
    while (part := connection.recv(pipe_keeper_process.MOST_BYTES)) != b".":
        if not part:
            raise ConnectionResetError("the pipe keeper has just ended")
        names.update(part.decode().split("\n"))
    return names


def _descriptors_from(connection: socket.socket) -> list[int]:
    most = pipe_keeper_process.MOST_DESCRIPTORS
    return socket.recv_fds(connection, pipe_keeper_process.MOST_BYTES, most, socket.MSG_CMSG_CLOEXEC)[1]


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A path of the socket that is never too long for one (108 bytes), however long the folder's is."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{_SOCKET_NAME}"
    finally:
        os.close(descriptor)
