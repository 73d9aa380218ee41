"""Makes, finds, checks and removes single sandboxes; which of them serves whom is `sandbox_pool`'s business.

What a sandbox's namespace looked like when it was made is kept in `<state dir>/sandboxes/<id>.json`, so that
a later runner can still tell whether it is clean.
"""

import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import Conflict, EngineFault, NotFound
from kohakuriver.runner.engines.docker.labels import sandbox_labels
from kohakuriver.runner.engines.docker.netns_state import (
    NetnsState,
    ProcessMark,
    is_alive,
    mark_process,
    read_netns,
    traces,
)
from kohakuriver.runner.engines.docker.sandbox_image import PAUSE_COMMAND

_NAME = "kohakuriver-sandbox-"
# runc itself runs in the container for a moment, and needs more than the process that stays
_MEMORY_BYTES = 32 << 20
_NAME_TRIES = 10_000
# A resolver's or a closing socket may need a moment to go; what stays longer counts as a trace.
_SECOND_LOOKS = 3
_SECOND_LOOK_SECONDS = 0.03


@dataclass(frozen=True, slots=True)
class Sandbox:
    """`mark` None: its processes cannot be seen from here, so it is never used twice."""

    id: str
    name: str
    hostname: str
    address: str
    mark: ProcessMark | None


class SandboxContainers:
    def __init__(self, api: DockerApi, node_name: str, network: str, gateway: str, state_dir: Path) -> None:
        self._api = api
        self._node = node_name
        self._network = network
        self._gateway = gateway
        self._records = state_dir / "sandboxes"
        self._next_number = 1
        self.image = ""  # set when the engine is opened

    async def make(self) -> Sandbox:
        """Start a new one; raises EngineFault or Unavailable."""
        container_id = await self._create()
        try:
            await self._api.json("POST", f"containers/{container_id}/start")
            sandbox = await self.read(container_id)
            if sandbox.mark is not None:
                await asyncio.to_thread(self._record, sandbox.id, read_netns(sandbox.mark.pid))
        except BaseException:
            await asyncio.shield(self.destroy(container_id))
            raise
        return sandbox

    async def read(self, container_id: str) -> Sandbox:
        facts = await self._api.json("GET", f"containers/{container_id}/json")
        networks = facts["NetworkSettings"]["Networks"]
        address = next((network["IPAddress"] for network in networks.values()), "")
        try:
            mark = mark_process(facts["State"]["Pid"]) if facts["State"]["Pid"] else None
        except (OSError, ValueError, IndexError):
            mark = None
        return Sandbox(
            facts["Id"], facts["Name"].lstrip("/"), facts["Config"]["Hostname"], address or "127.0.0.1", mark
        )

    async def revive(self, sandbox: Sandbox) -> None:
        """Start one again whose process ended (the daemon was restarted); its record no longer fits."""
        self._record_path(sandbox.id).unlink(missing_ok=True)
        await self._api.json("POST", f"containers/{sandbox.id}/start")

    async def destroy(self, container_id: str) -> None:
        """Remove it; free if it is gone."""
        self._record_path(container_id).unlink(missing_ok=True)
        try:
            await self._api.json("DELETE", f"containers/{container_id}", params={"force": "1", "v": "1"})
        except (NotFound, Conflict):
            return  # gone, or its removal is under way

    def is_ready(self, sandbox: Sandbox) -> bool:
        return sandbox.mark is None or is_alive(sandbox.mark)

    async def traces_in(self, sandbox: Sandbox) -> list[str]:
        """Say what a workload left in it; also what makes that impossible to tell."""
        if sandbox.mark is None:
            return ["its processes cannot be seen from here"]
        found: list[str] = []
        for look in range(_SECOND_LOOKS):
            if look:
                await asyncio.sleep(_SECOND_LOOK_SECONDS)
            found = await asyncio.to_thread(self._look, sandbox.id, sandbox.mark)
            if not found:
                break
        return found

    def _look(self, container_id: str, mark: ProcessMark) -> list[str]:
        try:
            made: NetnsState = json.loads(self._record_path(container_id).read_text())
            return traces(mark, made, self._gateway)
        except (OSError, ValueError, IndexError) as error:
            return [f"it cannot be checked ({error})"]

    async def _create(self) -> str:
        for _ in range(_NAME_TRIES):
            number, self._next_number = self._next_number, self._next_number + 1
            try:
                answer = await self._api.json(
                    "POST",
                    "containers/create",
                    params={"name": f"{_NAME}{number}"},
                    json=sandbox_body(self._node, number, self.image, self._network),
                )
            except Conflict:
                continue  # another runner on the same engine has this number
            return str(answer["Id"])
        raise EngineFault(f"no free name {_NAME}<n> for a sandbox; remove what is left of old ones")

    def _record(self, container_id: str, state: NetnsState) -> None:
        self._records.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._record_path(container_id).write_text(json.dumps(state))

    def _record_path(self, container_id: str) -> Path:
        return self._records / f"{container_id}.json"


def sandbox_body(node: str, number: int, image: str, network: str) -> dict[str, Any]:
    """Create-call body of a sandbox: no rights, no output, next to no memory."""
    return {
        "Image": image,
        "Entrypoint": [PAUSE_COMMAND[0]],
        "Cmd": list(PAUSE_COMMAND[1:]),
        "Hostname": sandbox_hostname(node, number),
        "User": "65534:65534",
        "StopSignal": "SIGKILL",
        "Labels": sandbox_labels(node),
        "HostConfig": {
            "NetworkMode": network,
            "LogConfig": {"Type": "none"},
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
            "Memory": _MEMORY_BYTES,
            "MemorySwap": _MEMORY_BYTES,
            "PidsLimit": 16,
            "RestartPolicy": {"Name": "no"},
        },
    }


def sandbox_hostname(node: str, number: int) -> str:
    """Host name that workloads see: the node's name and the sandbox's number, as a DNS label."""
    stem = re.sub(r"[^a-z0-9-]+", "-", node.lower()).strip("-")[:50].strip("-") or "node"
    return f"{stem}-{number}"
