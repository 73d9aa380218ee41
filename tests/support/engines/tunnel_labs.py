"""Engines whose workloads have tunnels, behind one face: the fake, and Docker with the real client."""

import asyncio
import contextlib
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from kohakuriver.runner.api.workloads.endpoints import WorkloadEndpoints, WorkloadServices
from kohakuriver.runner.api.workloads.listeners import bound_listeners, servers
from kohakuriver.runner.api.workloads.peers import WorkloadNetwork
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.docker.sandboxes.containers import Sandbox
from kohakuriver.runner.engines.docker.sandboxes.tunnel_folders import RunnerPlace
from support.cluster.cluster import free_port
from support.engines.labs import DockerLab, FakeLab, Lab, docker_lab, until
from support.engines.sandbox_client import seen_in, socket_in
from support.tunnel.services import CLIENT, Datagrams, Service, build_client

LOOPBACK = "127.0.0.1"


class TunnelLab(Protocol):
    """Services are heard on 127.0.0.1 of the workload only."""

    @property
    def lab(self) -> Lab: ...

    async def ready(self, spec: WorkloadSpec) -> None:
        """Return once the workload, which runs, can be reached."""

    def service(
        self, spec: WorkloadSpec, port: int, serve: Service
    ) -> contextlib.AbstractAsyncContextManager[None]: ...

    def datagrams(self, spec: WorkloadSpec, port: int) -> contextlib.AbstractAsyncContextManager[None]:
        """What is sent there comes back."""


class FakeTunnelLab:
    def __init__(self, folder: Path) -> None:
        self.lab = FakeLab(folder)

    async def ready(self, spec: WorkloadSpec) -> None:
        return None

    @contextlib.asynccontextmanager
    async def service(self, spec: WorkloadSpec, port: int, serve: Service) -> AsyncIterator[None]:
        async with await asyncio.start_server(serve, LOOPBACK, 0) as server:
            self.lab.machine.listeners[spec.task_id, port] = server.sockets[0].getsockname()
            yield

    @contextlib.asynccontextmanager
    async def datagrams(self, spec: WorkloadSpec, port: int) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Datagrams, local_addr=(LOOPBACK, 0))
        self.lab.machine.udp_listeners[spec.task_id, port] = transport.get_extra_info("sockname")
        yield
        transport.close()


class DockerTunnelLab:
    """`clients`: of sandboxes that none of the engine's own doing runs in."""

    def __init__(self, lab: DockerLab, clients: "list[subprocess.Popen[bytes]]") -> None:
        self.lab = lab
        self._clients = clients

    async def sandbox_of(self, spec: WorkloadSpec) -> Sandbox:
        known = await self.lab.engine.known_containers.find(spec.task_id, 0)
        assert known.sandbox is not None
        return known.sandbox

    async def ready(self, spec: WorkloadSpec) -> None:
        sandbox = await self.sandbox_of(spec)
        assert sandbox.mark is not None
        if not self.lab.tunnels.connected(sandbox.id):
            enter = ["nsenter", f"--net=/proc/{sandbox.mark.pid}/ns/net"]
            self._clients.append(subprocess.Popen([*enter, str(CLIENT), str(seen_in(sandbox))]))

        async def is_connected() -> bool:
            return self.lab.tunnels.connected(sandbox.id)

        await until(is_connected)

    @contextlib.asynccontextmanager
    async def service(self, spec: WorkloadSpec, port: int, serve: Service) -> AsyncIterator[None]:
        listener = await socket_in(await self.sandbox_of(spec))
        listener.bind((LOOPBACK, port))
        async with await asyncio.start_server(serve, sock=listener):
            yield

    @contextlib.asynccontextmanager
    async def datagrams(self, spec: WorkloadSpec, port: int) -> AsyncIterator[None]:
        made = await socket_in(await self.sandbox_of(spec), socket.SOCK_DGRAM)
        made.bind((LOOPBACK, port))
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, sock=made)
        yield
        transport.close()


@contextlib.asynccontextmanager
async def docker_tunnel_lab(folder: Path, pool_size: int = 1) -> AsyncIterator[DockerTunnelLab]:
    await asyncio.to_thread(build_client)
    number, port = uuid.uuid4().int % 4096, free_port()
    third, fourth = number // 16, number % 16 * 16
    subnet, gateway = f"10.236.{third}.{fourth}/28", f"10.236.{third}.{fourth + 1}"
    settings: dict[str, Any] = {
        "network_subnet": subnet,
        "network_gateway": gateway,
        "tunnels_to": RunnerPlace(gateway, port),
    }
    clients: list[subprocess.Popen[bytes]] = []
    async with contextlib.AsyncExitStack() as stack:
        listeners = stack.enter_context(bound_listeners(LOOPBACK, port, gateway))
        lab = await stack.enter_async_context(docker_lab(folder, pool_size, **settings))
        endpoints = WorkloadEndpoints(WorkloadServices(lab.tunnels, True))
        served = servers(listeners, WorkloadNetwork.of(subnet, gateway), _nothing, endpoints)
        running = [asyncio.create_task(server.serve(sockets=[listener])) for server, listener in served]
        try:
            yield DockerTunnelLab(lab, clients)
        finally:
            for client in clients:
                client.kill()
                client.wait()
            for server, _ in served:
                server.should_exit = True
            await asyncio.gather(*running)


async def _nothing(_scope: object, _receive: object, _send: Callable[..., Awaitable[None]]) -> None:
    """In the place of the host's routes."""
