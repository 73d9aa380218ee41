"""What `forward` reaches nobody with: each is refused, and who asked for what, and why not, is logged."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.wire.tunnel.end import TunnelEnd
from kohakuriver.wire.tunnel.events import Reset
from kohakuriver.wire.tunnel.frames import SUBPROTOCOL, Transport
from kohakuriver.wire.tunnel.table import Role
from support.cluster.tunnel_path import OWNER, TunnelPath, tunnel_path
from support.engines.labs import fresh_task_id, ignore
from support.engines.tunnel_labs import DockerTunnelLab, docker_tunnel_lab
from support.tunnel.services import echo, service

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

SECONDS = 60
Line = dict[str, Any]


@contextlib.contextmanager
def logged(event: str) -> Iterator[list[Line]]:
    """The lines of one kind that are written for as long as it lasts."""
    found: list[Line] = []
    with capture_logs() as lines:
        yield found
        found += [dict(line) for line in lines if line["event"] == event]


# At the host


def socket_to(path: TunnelPath, where: str, who: str | None, origin: str = "") -> connect:
    return connect(
        f"ws://{path.address}/ws/forward/{where}",
        additional_headers=path.harness.credential(who),
        origin=Origin(origin) if origin else None,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        proxy=None,
    )


async def refused(path: TunnelPath, where: str, who: str | None, origin: str = "") -> tuple[int, Line]:
    """The status of the answer, and the one line of the audit log."""
    with logged("audit") as lines, pytest.raises(InvalidStatus) as answer:
        await socket_to(path, where, who, origin)
    (line,) = lines
    assert line["address"] == "127.0.0.1"
    return answer.value.response.status_code, line


@pytest.mark.parametrize(
    "origin", ["https://elsewhere.example", "null", "http://127.0.0.1.elsewhere.example"]
)
async def test_a_page_of_another_site(tmp_path: Path, origin: str) -> None:
    async with tunnel_path(tmp_path) as path, asyncio.timeout(SECONDS):
        status, line = await refused(path, f"{path.task_id}/8888", None, origin)
        assert status == 403
        assert (line["action"], line["outcome"], line["actor"]) == ("workload.forward", "refused", "nobody")
        assert line["reason"] == "requests from pages of other sites are refused"


@pytest.mark.parametrize(
    ("who", "status", "reason"),
    [("ulf", 403, "belongs to somebody else"), ("vera", 403, ""), (None, 401, "")],
)
async def test_who_has_no_right_to_the_workload(
    tmp_path: Path, who: str | None, status: int, reason: str
) -> None:
    async with tunnel_path(tmp_path) as path, asyncio.timeout(SECONDS):
        got, line = await refused(path, f"{path.task_id}/8888", who)
        assert got == status
        assert (line["action"], line["outcome"]) == ("workload.forward", "refused")
        assert line["actor"] == (who or "nobody")
        assert str(path.task_id) in line["object"]
        assert line["reason"]
        assert reason in line["reason"]


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
async def test_what_is_no_port(tmp_path: Path, port: str) -> None:
    async with tunnel_path(tmp_path) as path, asyncio.timeout(SECONDS):
        status, line = await refused(path, f"{path.task_id}/{port}", OWNER)
        assert status == 422
        assert (line["action"], line["outcome"], line["actor"]) == ("workload.forward", "failed", OWNER)
        assert f"{path.task_id} {port}" in line["object"]
        assert "port" in line["reason"]


# In a workload


class Way:
    """The way over host and runner to a workload in a real sandbox, whose ports are asked for by hand."""

    def __init__(self, path: TunnelPath, lab: DockerTunnelLab, spec: WorkloadSpec) -> None:
        self.path = path
        self.lab = lab
        self.spec = spec

    async def refused(self, port: int, transport: Transport = Transport.TCP) -> str:
        """The sentence with which a port is refused; it is in the runner's log too."""
        end = TunnelEnd(Role.OPENS, credit=True)
        with logged("stream_refused") as lines:
            async with socket_to(self.path, f"{self.path.task_id}/8888", OWNER) as client:
                assert await client.recv() == "CONNECTED"
                end.open(transport, port)
                while written := end.next_frame():
                    await client.send(written[1])
                frame = await client.recv()
        assert isinstance(frame, bytes)
        event = end.receive(frame)
        assert isinstance(event, Reset), event
        (line,) = lines
        assert (line["task_id"], line["reason"]) == (self.path.task_id, event.sentence)
        return event.sentence


async def begun(lab: DockerTunnelLab, task_id: TaskId) -> WorkloadSpec:
    spec = lab.lab.spec("/bin/sleep", "600", task_id=task_id)
    await lab.lab.engine.create(spec, ignore)
    await lab.lab.engine.start(spec.task_id, 1)
    await lab.ready(spec)
    return spec


@pytest.fixture
async def way(tmp_path: Path) -> AsyncIterator[Way]:
    async with (
        docker_tunnel_lab(tmp_path / "engine") as lab,
        tunnel_path(tmp_path, SimpleNamespace(ports=lab.lab.engine.ports)) as path,
        asyncio.timeout(SECONDS),
    ):
        spec = await begun(lab, path.task_id)
        yield Way(path, lab, spec)
        await lab.lab.engine.remove(spec.task_id, 1)


@pytest.mark.docker
@pytest.mark.root
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_a_port_of_the_node(way: Way, host: str) -> None:
    async with service(echo, host=host) as port:
        assert await way.refused(port) == f"nothing listens on port {port} of the workload"


@pytest.mark.docker
@pytest.mark.root
async def test_a_port_of_the_runner_and_of_the_sandboxs_own_connection(way: Way) -> None:
    """The port at which the runner hears its sandboxes, which the client in the sandbox is connected to."""
    place = way.lab.lab.settings.tunnels_to
    assert place is not None
    assert await way.refused(place.port) == f"nothing listens on port {place.port} of the workload"


@pytest.mark.docker
@pytest.mark.root
async def test_a_port_of_another_workload(way: Way) -> None:
    other = await begun(way.lab, fresh_task_id())
    async with way.lab.service(other, 7777, echo):
        assert await way.refused(7777) == "nothing listens on port 7777 of the workload"
    await way.lab.lab.engine.remove(other.task_id, 1)


@pytest.mark.docker
@pytest.mark.root
@pytest.mark.parametrize("transport", Transport)
async def test_port_0(way: Way, transport: Transport) -> None:
    assert await way.refused(0, transport) == "port 0 is none that anything listens on"
