"""Ports of workloads: by the client in their sandbox, or without it by the sandbox's address.

A VPS's sshd is dialled from inside.
"""

import asyncio

from kohakuriver.models.errors import NotFound, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.ports import Connection, PortTunnel
from kohakuriver.runner.engines.docker.kernel.netns_dial import dial_loopback
from kohakuriver.runner.engines.docker.sandboxes.containers import Sandbox, SandboxContainers
from kohakuriver.runner.engines.docker.workloads.known_containers import KnownContainer, KnownContainers
from kohakuriver.runner.tunnels.sandbox_tunnels import SandboxTunnels

SSH_PORT = 22
_DIAL_SECONDS = 10.0


class DockerPorts:
    def __init__(
        self, sandboxes: SandboxContainers, known_containers: KnownContainers, tunnels: SandboxTunnels
    ) -> None:
        self._sandboxes = sandboxes
        self._known_containers = known_containers
        self._tunnels = tunnels

    async def dial(self, task_id: TaskId, port: int) -> Connection:
        known = await self._known_containers.find(task_id, 0)
        sandbox = await self.reachable_sandbox(task_id, known)
        try:
            async with asyncio.timeout(_DIAL_SECONDS):
                if known.is_vps and port == SSH_PORT:
                    return await dial_inside(sandbox, port)
                return await asyncio.open_connection(sandbox.address, port)
        except TimeoutError as error:
            raise Unavailable(
                f"port {port} of {task_id} did not answer within {_DIAL_SECONDS:.0f} s"
            ) from error
        except OSError as error:
            raise Unavailable(f"nothing listens on port {port} of {task_id} ({error.strerror})") from error

    async def open_tunnel(self, task_id: TaskId) -> PortTunnel:
        self._tunnels.check_offered()
        known = await self._known_containers.find(task_id, 0)
        sandbox = await self.reachable_sandbox(task_id, known)
        if self._known_containers.get(task_id) is not known:
            # Its sandbox may serve another by now.
            raise NotFound(f"{task_id} has ended")
        return self._tunnels.open_tunnel(sandbox.id, task_id)

    async def reachable_sandbox(self, task_id: TaskId, known: KnownContainer) -> Sandbox:
        """One whose network is up: one that fell may have lost its address to another workload."""
        sandbox = known.sandbox
        if sandbox is not None and not self._sandboxes.is_ready(sandbox):
            sandbox = known.sandbox = await self._sandboxes.read(sandbox.id)
        if sandbox is None or not sandbox.has_network or not self._sandboxes.is_ready(sandbox):
            raise Unavailable(f"the network of {task_id} is down, so it cannot be reached")
        return sandbox


async def dial_inside(sandbox: Sandbox, port: int) -> Connection:
    """As from inside its network: a VPS's sshd without a password listens nowhere else."""
    if sandbox.mark is None:
        raise Unavailable("this runner may not look at the processes of its VPSs; run it as root")
    return await dial_loopback(sandbox.mark, port)
