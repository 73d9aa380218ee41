"""Engines whose workloads have tunnels, behind one face: the fake, and Docker with the real client."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.docker.sandboxes.containers import Sandbox
from support.engines.endpoint_site import LOOPBACK, site_at
from support.engines.labs import DockerLab, FakeLab, Lab, until
from support.engines.sandbox_client import socket_in
from support.tunnel.services import CLIENT, Datagrams, Service, build_client


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
    def __init__(self, lab: DockerLab) -> None:
        self.lab = lab

    async def sandbox_of(self, spec: WorkloadSpec) -> Sandbox:
        known = await self.lab.engine.known_containers.find(spec.task_id, 0)
        assert known.sandbox is not None
        return known.sandbox

    async def ready(self, spec: WorkloadSpec) -> None:
        sandbox = await self.sandbox_of(spec)

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
    async with site_at(folder, LOOPBACK, client=CLIENT, pool_size=pool_size) as site:
        yield DockerTunnelLab(site.lab)
