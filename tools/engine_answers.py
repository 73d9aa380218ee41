"""Exit status: 0 a Docker engine answers, 3 there is one that this user may not reach, 1 none answers.

Standard library only, because it runs before anything is installed; asks where the program itself would ask.
"""

import http.client
import os
import socket
import sys
from pathlib import Path

_SOCKETS = ("/run/docker.sock", "/var/run/docker.sock")
_TIMEOUT_SECONDS = 10
ANSWERS, NO_ANSWER, NOT_ALLOWED = 0, 1, 3


def _unix_path() -> str | None:
    configured = os.environ.get("DOCKER_HOST", "")
    if configured.startswith("unix://"):
        return configured.removeprefix("unix://")
    if configured:
        return None
    return next((path for path in _SOCKETS if Path(path).exists()), _SOCKETS[0])


def _connect() -> socket.socket:
    path = _unix_path()
    if path is None:
        address = os.environ["DOCKER_HOST"].split("://", 1)[-1].rstrip("/")
        host, _, port = address.rpartition(":")
        return socket.create_connection((host or address, int(port or "2375")), _TIMEOUT_SECONDS)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_TIMEOUT_SECONDS)
    connection.connect(path)
    return connection


def main() -> int:
    try:
        with _connect() as connection:
            connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return ANSWERS if answer.status == http.client.OK else NO_ANSWER
    except PermissionError:
        return NOT_ALLOWED
    except (OSError, ValueError, http.client.HTTPException):
        return NO_ANSWER


if __name__ == "__main__":
    sys.exit(main())
