"""How an environment container is kept alive, whatever its image holds.

The shell form sleeps, ends at once on SIGTERM, and where the image has no `sleep` waits on its standard
input, which the engine holds open.
"""

import re

_SCRIPT = "trap 'exit 0' TERM HUP INT; while sleep 86400 & wait $!; do :; done; read -r _"
KEEPALIVE_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("sh", "-c", _SCRIPT),
    ("bash", "-c", _SCRIPT),
    ("sleep", "infinity"),
    ("tail", "-f", "/dev/null"),
)
"""Tried in this order; the first whose program the image has is used."""

_NO_SUCH_PROGRAM = re.compile(
    r"executable file not found|no such file or directory|permission denied", re.IGNORECASE
)


def is_missing_program(message: str) -> bool:
    """Whether the engine refused to start a container for want of the program, and not for another reason."""
    return _NO_SUCH_PROGRAM.search(message) is not None and "exec" in message
