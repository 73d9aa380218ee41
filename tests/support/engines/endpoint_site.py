"""An engine whose sandboxes are told where their runner is, and the endpoints for workloads, served there."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.types import Receive, Scope, Send

from kohakuriver.runner.api.workloads.endpoints import WorkloadEndpoints, WorkloadServices
from kohakuriver.runner.api.workloads.listeners import bound_listeners, servers
from kohakuriver.runner.api.workloads.peers import WorkloadNetwork
from kohakuriver.runner.engines.docker.sandboxes.containers import Sandbox
from kohakuriver.runner.engines.docker.sandboxes.tunnel_folders import RunnerPlace
from kohakuriver.runner.network.egress_rules import EgressSettings
from kohakuriver.serving import ApiServer
from support.cluster.cluster import free_port
from support.engines.labs import DockerLab, docker_lab, until
from support.engines.sandbox_client import dial
from support.messages.raw_http import RawClient, ask

EVERYWHERE, LOOPBACK = "0.0.0.0", "127.0.0.1"


class HostTable:
    """In the place of the host's routes: it takes whatever reaches it."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        self.reached.append(scope["path"])
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b""})


class Site:
    """An engine whose sandboxes have secrets, and both tables, served as a runner does."""

    def __init__(self, lab: DockerLab, port: int, table: HostTable, served: list[ApiServer]) -> None:
        self.lab = lab
        self.port = port
        self.host_port = lab.settings.egress.host_port
        self.host_table = table
        self.servers = served
        self.gateway = lab.settings.network_gateway

    async def sandboxes(self, count: int = 2) -> list[Sandbox]:
        async def are_there() -> bool:
            return len(self.lab.engine.pool.idle) >= count

        await until(are_there, 60)
        return list(self.lab.engine.pool.idle)

    async def ask(self, sandbox: Sandbox, request: bytes) -> int:
        """What is answered to a request from the sandbox's network; 0: nothing."""
        connection = await dial(sandbox, self.gateway, self.port)
        client = RawClient(*await asyncio.open_connection(sock=connection))
        try:
            await client.send(request)
            return await client.status()
        finally:
            client.close()

    async def ask_from_node(self, request: bytes) -> int:
        return await ask(f"{LOOPBACK}:{self.port}", request)


@contextlib.asynccontextmanager
async def site_at(
    folder: Path, bind_ip: str, *, enabled: bool = True, client: Path | None = None, pool_size: int = 2
) -> AsyncIterator[Site]:
    """`client`: the program that runs in its sandboxes; None: tests speak in its place."""
    number, port = uuid.uuid4().int % 4096, free_port()
    third, fourth = number // 16, number % 16 * 16
    subnet, gateway = f"10.235.{third}.{fourth}/28", f"10.235.{third}.{fourth + 1}"
    place = RunnerPlace(gateway, port) if enabled else None
    settings: dict[str, Any] = {
        "network_subnet": subnet,
        "network_gateway": gateway,
        "tunnels_to": place,
        "tunnel_client": client,
        "egress": EgressSettings(("control",), port, LOOPBACK, free_port(), gateway if enabled else ""),
    }
    with bound_listeners(bind_ip, port, gateway) as listeners:  # before there is a bridge
        async with docker_lab(folder, pool_size, **settings) as lab:
            table = HostTable()
            endpoints = WorkloadEndpoints(WorkloadServices(lab.tunnels))
            served = servers(listeners, WorkloadNetwork.of(subnet, gateway), table, endpoints)
            running = [asyncio.create_task(s.serve(sockets=[listener])) for s, listener in served]
            try:
                yield Site(lab, port, table, [server for server, _ in served])
            finally:
                for server, _ in served:
                    server.should_exit = True
                await asyncio.gather(*running)
