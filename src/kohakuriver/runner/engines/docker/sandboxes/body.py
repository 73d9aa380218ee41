"""The create call of a sandbox's container, and its form, which those of the same image and settings share.

Memory and processes are what a client may need at most; idle it has 7 MB and 5 threads.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from kohakuriver.runner.engines.docker.sandboxes.image import CLIENT_COMMAND, PAUSE_COMMAND


@dataclass(frozen=True, slots=True)
class _Needs:
    command: tuple[str, ...]
    memory_bytes: int
    processes: int
    env: tuple[str, ...] = ()


# runc itself runs in the container for a moment, and needs more than the process that stays
_PLAIN = _Needs(PAUSE_COMMAND, 32 << 20, 16)
# As many streams as a sandbox may have, none of which is read. Go begins to save before it is too late.
_WITH_CLIENT = _Needs(CLIENT_COMMAND, 192 << 20, 32, ("GOMEMLIMIT=144MiB",))


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    """How the sandbox of a VPS is to be; `address` None: any."""

    hostname: str
    address: str | None


def sandbox_body(
    hostname: str,
    labels: dict[str, str],
    image: str,
    network: str,
    mounts: list[dict[str, Any]],
    *,
    client: bool,
) -> dict[str, Any]:
    """Create-call body of a sandbox: no rights, no output, little memory. `client`: whether it has one."""
    needs = _WITH_CLIENT if client else _PLAIN
    return {
        "Image": image,
        "Entrypoint": [needs.command[0]],
        "Cmd": list(needs.command[1:]),
        "Env": list(needs.env),
        "Hostname": hostname,
        "User": "65534:65534",
        "StopSignal": "SIGKILL",
        "Labels": labels,
        "HostConfig": {
            "NetworkMode": network,
            "Mounts": mounts,
            "LogConfig": {"Type": "none"},
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
            "Memory": needs.memory_bytes,
            "MemorySwap": needs.memory_bytes,
            "PidsLimit": needs.processes,
            "RestartPolicy": {"Name": "no"},
        },
    }


def form_of(body: dict[str, Any]) -> str:
    """The same for create calls that differ in nothing."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def vps_changes(network: str, request: SandboxRequest) -> dict[str, Any]:
    """What is different in the body of a sandbox for a VPS."""
    changes: dict[str, Any] = {"Hostname": request.hostname}
    if request.address is not None:
        endpoint = {"IPAMConfig": {"IPv4Address": request.address}}
        changes["NetworkingConfig"] = {"EndpointsConfig": {network: endpoint}}
    return changes


def sandbox_hostname(node: str, number: int) -> str:
    """Host name that workloads see: the node's name and the sandbox's number, as a DNS label."""
    stem = re.sub(r"[^a-z0-9-]+", "-", node.lower()).strip("-")[:50].strip("-") or "node"
    return f"{stem}-{number}"
