"""The Docker engine of this machine, as far as `up` must know it before the daemons run."""

import http.client
import json
import os
import socket
from typing import Any

from kohakuriver.models.errors import Unavailable

_ANSWER_SECONDS = 10.0
_LARGEST_ANSWER_BYTES = 16 << 20


def check_engine() -> None:
    """Raise Unavailable if no Docker daemon answers where one is expected."""
    path = _socket_path()
    if path is None:
        return
    try:
        _connection(path).close()
    except OSError as error:
        raise Unavailable(
            f"no Docker daemon answers at {path} ({error.strerror or error}); install and start one "
            "(`systemctl start docker`, or `make setup` in the source folder), then try again"
        ) from error


def engine_networks() -> list[dict[str, Any]]:
    """The engine's networks as it lists them; none where it cannot be asked."""
    path = _socket_path()
    if path is None:
        return []
    asked = http.client.HTTPConnection("localhost")
    try:
        asked.sock = _connection(path)
        asked.request("GET", "/networks")
        listed = json.loads(asked.getresponse().read(_LARGEST_ANSWER_BYTES))
    except (OSError, http.client.HTTPException, ValueError):
        return []
    finally:
        asked.close()
    return [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []


def _socket_path() -> str | None:
    """None where the engine is reached over the network, or in a way that is not known here."""
    address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    return address.removeprefix("unix://") if address.startswith("unix://") else None


def _connection(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_ANSWER_SECONDS)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection
