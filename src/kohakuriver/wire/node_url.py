"""The url that a node announces. Only its port is used: where the node is, the host has seen for itself."""

import re

DEFAULT_PORT = 8001
MAX_LENGTH = 300
_URL = re.compile(
    r"(?:https?://)?(?:\[[0-9A-Fa-f:.%]{1,60}\]|[^\s:/@\[\]]{0,253})(?::(?P<port>[0-9]{1,5}))?/?"
)


def announced_port(url: str) -> int:
    """Return the port, the default one if none is named; raises ValueError for what is no node's url."""
    match = _URL.fullmatch(url) if len(url) <= MAX_LENGTH else None
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if not 1 <= port <= 65535:
        raise ValueError("the url of a node is http://NAME:PORT with a port from 1 to 65535")
    return port
