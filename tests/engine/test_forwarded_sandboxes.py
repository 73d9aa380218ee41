"""Sandboxes whose ports were forwarded: used again only where all streams are known to be closed."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kohakuriver.models.errors import Unavailable
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.docker.sandboxes.containers import Sandbox
from kohakuriver.wire.tunnel.events import Connected
from kohakuriver.wire.tunnel.frames import FrameType, Header, Transport, frame_of
from support.engines.labs import ignore
from support.engines.sandbox_client import client_of
from support.engines.tunnel_labs import DockerTunnelLab, docker_tunnel_lab
from support.tunnel.stream_user import User, until_over

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]

PORT = 8888
SERVES = ("/bin/nc", "-ll", "-p", str(PORT), "-e", "/bin/cat")
STREAMS = 30
SECONDS = 30


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[DockerTunnelLab]:
    async with docker_tunnel_lab(tmp_path) as made:
        yield made


async def begin(lab: DockerTunnelLab) -> tuple[WorkloadSpec, Sandbox]:
    spec = lab.lab.spec(*SERVES)
    await lab.lab.engine.create(spec, ignore)
    await lab.lab.engine.start(spec.task_id, 1)
    await lab.ready(spec)
    return spec, await lab.sandbox_of(spec)


async def use(lab: DockerTunnelLab, spec: WorkloadSpec) -> User:
    """Open connections to the workload's server, which are all there, and leave them so."""
    user = User(await lab.lab.engine.ports.open_tunnel(spec.task_id))
    connected = 0
    async with asyncio.timeout(SECONDS):
        while connected < STREAMS:
            await user.open(PORT)
            connected += isinstance(await user.event(), Connected)
    return user


def idle(lab: DockerTunnelLab) -> set[str]:
    return {sandbox.id for sandbox in lab.lab.engine.pool.idle}


async def end(lab: DockerTunnelLab, spec: WorkloadSpec) -> list[str]:
    """Remove the workload; return what is said of streams that may be open."""
    with capture_logs() as lines:
        await lab.lab.engine.remove(spec.task_id, 1)
    return [line["reason"] for line in lines if line["event"] == "streams_not_confirmed_closed"]


async def test_a_sandbox_is_used_again_once_its_streams_are_confirmed_closed(lab: DockerTunnelLab) -> None:
    used = set()
    for _ in range(3):
        spec, sandbox = await begin(lab)
        await use(lab, spec)
        assert await end(lab, spec) == []
        used.add(sandbox.id)
    assert len(used) == 1
    assert used <= idle(lab)


async def test_a_sandbox_is_not_used_again_where_its_client_confirms_nothing(lab: DockerTunnelLab) -> None:
    spec, sandbox = await begin(lab)
    await use(lab, spec)
    (client,) = client_of(sandbox)
    os.kill(client, signal.SIGSTOP)
    assert await end(lab, spec) == ["late"]
    assert sandbox.id not in idle(lab)
    assert sandbox.id not in {row["Id"] for row in await lab.lab.containers("kohakuriver.sandbox")}


async def test_a_client_that_was_never_asked_for_a_stream_is_asked_nothing(lab: DockerTunnelLab) -> None:
    spec, sandbox = await begin(lab)
    (client,) = client_of(sandbox)
    os.kill(client, signal.SIGSTOP)
    assert await end(lab, spec) == []
    os.kill(client, signal.SIGCONT)
    assert sandbox.id in idle(lab)


async def test_the_streams_of_one_workload_never_reach_the_next_in_its_sandbox(lab: DockerTunnelLab) -> None:
    spec, sandbox = await begin(lab)
    user = await use(lab, spec)
    await end(lab, spec)
    later, same = await begin(lab)
    assert same.id == sandbox.id
    with pytest.raises(Unavailable, match="has ended"):
        await until_over(user)
    for stream in range(1, STREAMS + 1):
        with pytest.raises(Unavailable):
            await user.tunnel.send(frame_of(Header(FrameType.DATA, Transport.TCP, stream, 0), b"GET /"))
    assert _established_in(same) == 0
    await end(lab, later)


def _established_in(sandbox: Sandbox) -> int:
    """Connections to the workload's server, as the kernel lists them."""
    assert sandbox.mark is not None
    lines = Path(f"/proc/{sandbox.mark.pid}/net/tcp").read_text().splitlines()[1:]
    return sum(f":{PORT:04X}" in line.split()[2] for line in lines)
