"""The rules of `engines.contract.ports`, over the fake and the real engine alike."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kohakuriver.models.errors import InvalidInput, NotFound, SwitchedOff, Unavailable
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.wire.tunnel.events import Connected, Finished, Received, Reset
from kohakuriver.wire.tunnel.frames import FrameType, Header, Transport, frame_of
from support.engines.labs import docker_lab, fresh_task_id, ignore
from support.engines.tunnel_labs import FakeTunnelLab, TunnelLab, docker_tunnel_lab
from support.tunnel.services import echo
from support.tunnel.stream_user import User, until_over

pytestmark = pytest.mark.anyio


@pytest.fixture(
    scope="module", params=["fake", pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.root])]
)
async def lab(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[TunnelLab]:
    folder: Path = tmp_path_factory.mktemp("engine")
    if request.param == "fake":
        yield FakeTunnelLab(folder)
        return
    async with docker_tunnel_lab(folder) as real:
        yield real


async def begin(lab: TunnelLab) -> WorkloadSpec:
    spec = lab.lab.spec(*lab.lab.argv("sleep", "600"))
    await lab.lab.engine.create(spec, ignore)
    await lab.lab.engine.start(spec.task_id, 1)
    await lab.ready(spec)
    return spec


async def test_connections_to_what_listens_on_loopback(lab: TunnelLab) -> None:
    spec = await begin(lab)
    async with lab.service(spec, 7777, echo):
        user = User(await lab.lab.engine.ports.open_tunnel(spec.task_id))
        streams = {await user.open(7777): number for number in range(20)}
        for stream, number in streams.items():
            user.end.send(stream, b"%d" % number)
            user.end.finish(stream)
        heard: dict[int, bytes] = {}
        ended = 0
        while ended < len(streams):
            event = await user.event()
            ended += isinstance(event, Finished)
            if isinstance(event, Received):
                heard[event.client_id] = heard.get(event.client_id, b"") + bytes(event.data)
        assert heard == {stream: b"%d" % number for stream, number in streams.items()}
        user.tunnel.close()
    await lab.lab.engine.remove(spec.task_id, 1)


async def test_datagrams(lab: TunnelLab) -> None:
    spec = await begin(lab)
    async with lab.datagrams(spec, 5353):
        user = User(await lab.lab.engine.ports.open_tunnel(spec.task_id))
        flow = await user.open(5353, Transport.UDP)
        user.end.send(flow, b"question")
        events = [await user.event() for _ in range(2)]
        assert isinstance(events[0], Connected)
        assert isinstance(events[1], Received)
        assert bytes(events[1].data) == b"question"
        user.tunnel.close()
    await lab.lab.engine.remove(spec.task_id, 1)


async def test_a_port_where_nothing_listens_and_port_0_are_errors_of_their_streams(lab: TunnelLab) -> None:
    spec = await begin(lab)
    user = User(await lab.lab.engine.ports.open_tunnel(spec.task_id))
    for port in (7, 0):
        stream = await user.open(port)
        event = await user.event()
        assert isinstance(event, Reset)
        assert event.client_id == stream
        assert f"port {port}" in event.sentence
    user.tunnel.close()
    await lab.lab.engine.remove(spec.task_id, 1)


async def test_tunnels_of_one_workload_do_not_meet(lab: TunnelLab) -> None:
    spec = await begin(lab)
    async with lab.service(spec, 7778, echo):
        users = [User(await lab.lab.engine.ports.open_tunnel(spec.task_id)) for _ in range(2)]
        for number, user in enumerate(users):
            assert await user.open(7778) == 1
            user.end.send(1, b"%d" % number)
            assert isinstance(await user.event(), Connected)
            event = await user.event()
            assert isinstance(event, Received)
            assert bytes(event.data) == b"%d" % number
        breach = frame_of(Header(FrameType.CONNECT, Transport.TCP, 1, 80))
        with pytest.raises(InvalidInput):
            await users[0].tunnel.send(breach)
        users[0].tunnel.close()
        users[1].end.send(1, b"still")
        assert isinstance(await users[1].event(), Received)
        users[1].tunnel.close()
    await lab.lab.engine.remove(spec.task_id, 1)


async def test_a_tunnel_ends_with_its_workload(lab: TunnelLab) -> None:
    spec = await begin(lab)
    async with lab.service(spec, 7779, echo):
        user = User(await lab.lab.engine.ports.open_tunnel(spec.task_id))
        await user.open(7779)
        assert isinstance(await user.event(), Connected)
        await lab.lab.engine.remove(spec.task_id, 1)
        with pytest.raises(Unavailable, match="has ended"):
            await until_over(user)
        with pytest.raises(Unavailable):
            await user.tunnel.send(frame_of(Header(FrameType.PING, Transport.TCP, 0, 0)))
    with pytest.raises(NotFound):
        await lab.lab.engine.ports.open_tunnel(spec.task_id)
    with pytest.raises(NotFound):
        await lab.lab.engine.ports.open_tunnel(fresh_task_id())


@pytest.mark.docker
@pytest.mark.root
async def test_without_tunnels_there_is_no_way_in_and_the_reason_is_named(tmp_path: Path) -> None:
    async with docker_lab(tmp_path) as real:
        spec = real.spec(*real.argv("sleep", "600"))
        await real.engine.create(spec, ignore)
        with pytest.raises(SwitchedOff, match="TUNNEL_ENABLED"):
            await real.engine.ports.open_tunnel(spec.task_id)
        await real.engine.remove(spec.task_id, 1)
