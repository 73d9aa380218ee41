"""Create-call body of an environment container, from settings and facts, and the commands that keep it alive,
whatever its image holds. Pure.

Their shell form sleeps, ends at once on SIGTERM, and where the image has no `sleep` waits on its standard
input, which the engine holds open.
"""

import re
from typing import Any

from kohakuriver.host.environments.environment_settings import EnvironmentSettings
from kohakuriver.models.names import LABEL_ENVIRONMENT, LABEL_MANAGED

_MIN_MEMORY_BYTES = 16 << 20
_MIN_NANO_CPUS = 10_000_000
# The host goes on, whatever is done in an environment.
_OOM_SCORE_ADJ = 500
_MOST_PROCESSES = 4096
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


def environment_body(
    settings: EnvironmentSettings, name: str, image: str, machine: dict[str, Any], has_shared: bool
) -> dict[str, Any]:
    """Return the body but for its command. `machine`: the engine's own `info`."""
    memory = max(_MIN_MEMORY_BYTES, int(machine["MemTotal"] * settings.memory_limit))
    binds = [
        {"Type": "bind", "Source": mount.source, "Target": mount.destination, "ReadOnly": mount.read_only}
        for mount in settings.additional_mounts
    ]
    working_dir = settings.working_dir
    if has_shared:
        shared = str(settings.shared_data_dir)
        binds.insert(0, {"Type": "bind", "Source": shared, "Target": "/shared", "ReadOnly": False})
    elif working_dir == "/shared" or working_dir.startswith("/shared/"):
        working_dir = "/"
    return {
        "Image": image,
        "User": "0",
        "WorkingDir": working_dir,
        "OpenStdin": True,
        "Labels": {LABEL_MANAGED: "true", LABEL_ENVIRONMENT: name},
        "HostConfig": {
            "NanoCpus": max(_MIN_NANO_CPUS, int(machine["NCPU"] * settings.cpu_limit * 1e9)),
            "Memory": memory,
            "MemorySwap": memory,
            "Mounts": binds,
            "OomScoreAdj": _OOM_SCORE_ADJ,
            "PidsLimit": _MOST_PROCESSES,
            "Privileged": settings.privileged,
            # As workloads: neither speaking for others on the engine's network nor devices serve an image.
            "CapDrop": ["MKNOD", "NET_RAW"],
        },
    }


def is_missing_program(message: str) -> bool:
    """Whether the engine refused to start a container for want of the program, and not for another reason."""
    return _NO_SUCH_PROGRAM.search(message) is not None and "exec" in message
