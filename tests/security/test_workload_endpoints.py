"""The endpoints for workloads: who is heard there, and that no way leads from them to the host's routes.

Clients speak from the network namespaces of real sandboxes, as programs of a workload do.
"""

import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed, InvalidStatus

from kohakuriver.runner.api.routes import declared_routes
from kohakuriver.runner.api.workloads.peers import WorkloadNetwork
from kohakuriver.runner.engines.docker.sandboxes.tunnel_folders import PLACE, RunnerPlace
from kohakuriver.runner.network.egress_rules import EgressSettings
from kohakuriver.runner.tunnels.sandbox_tunnels import SandboxTunnels
from kohakuriver.wire.trust.identity import Identity, Side
from kohakuriver.wire.trust.sealed_calls import Caller
from kohakuriver.wire.tunnel.frames import FrameType, Header, Transport, frame_of, read_header
from support.engines.endpoint_site import EVERYWHERE, LOOPBACK, Site, site_at
from support.engines.labs import abandon, ignore, until
from support.engines.sandbox_client import answer_to, connected, dial, knocking, prove, seen_in, told
from support.messages.raw_http import ask, head

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(240)]

HOST_STREAMS = ("/ws/task/7/terminal", "/ws/forward/kohakuriver-vps-7/22", "/ws/fs/7/archive")


@pytest.fixture(params=[EVERYWHERE, LOOPBACK])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_at(tmp_path, request.param) as made:
        yield made


@contextlib.contextmanager
def refusals() -> Iterator[list[dict[str, Any]]]:
    """What is logged of those who are refused, for as long as it lasts."""
    found: list[dict[str, Any]] = []
    with capture_logs() as lines:
        yield found
        found += [dict(line) for line in lines if line["event"] == "workload_refused"]


def status_of(refused: pytest.ExceptionInfo[InvalidStatus]) -> int:
    return refused.value.response.status_code


# Who is heard


async def test_a_sandbox_is_connected_once_both_ends_have_proven_themselves(site: Site) -> None:
    sandbox, other = await site.sandboxes()
    tunnels = site.lab.tunnels
    async with knocking(sandbox) as client:
        assert not tunnels.connected(sandbox.id)
        assert await prove(client, sandbox.name, told(sandbox).secret)
        await client.send(frame_of(Header(FrameType.PING, Transport.TCP, 0, 0)))
        answer = await client.recv()
        assert isinstance(answer, bytes)
        assert read_header(answer).type == FrameType.PONG
        assert tunnels.connected(sandbox.id)
        assert not tunnels.connected(other.id)

    async def is_gone() -> bool:
        return not tunnels.connected(sandbox.id)

    await until(is_gone)


async def test_a_newer_connection_takes_the_place_of_the_older(site: Site) -> None:
    sandbox, *_ = await site.sandboxes()
    async with connected(sandbox) as older, connected(sandbox):
        with pytest.raises(ConnectionClosed) as closed:
            await older.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert site.lab.tunnels.connected(sandbox.id)


async def test_who_proves_nothing_takes_nobodys_place(site: Site) -> None:
    sandbox, other = await site.sandboxes()
    async with connected(sandbox) as client:
        async with knocking(sandbox) as thief:
            with pytest.raises(ConnectionClosed):
                await prove(thief, sandbox.name, told(other).secret)
        await client.send(frame_of(Header(FrameType.PING, Transport.TCP, 0, 0)))
        assert await client.recv()


async def test_the_secret_of_another_sandbox_is_refused_and_logged(site: Site) -> None:
    sandbox, other = await site.sandboxes()
    with refusals() as lines:
        async with knocking(sandbox) as client:
            with pytest.raises(ConnectionClosed):
                await prove(client, sandbox.name, told(other).secret)
    (line,) = lines
    assert line["address"] == sandbox.address
    assert "secret" in line["reason"]
    assert told(other).secret.hex() not in str(line)


async def test_another_sandboxs_name_is_refused_and_logged_even_with_its_secret(site: Site) -> None:
    sandbox, other = await site.sandboxes()
    with refusals() as lines, pytest.raises(InvalidStatus) as refused:
        async with knocking(sandbox, other.name) as client:
            await prove(client, other.name, told(other).secret)
    assert status_of(refused) == 403
    (line,) = lines
    assert line["address"] == sandbox.address
    assert other.name in line["path"]
    assert "address" in line["reason"]


@pytest.mark.parametrize(
    "name", ["kohakuriver-sandbox-999999", "x" * 5000, "%2e%2e", "a%00b", "é".encode().hex()]
)
async def test_a_name_that_no_sandbox_has_is_refused(site: Site, name: str) -> None:
    sandbox, *_ = await site.sandboxes()
    with refusals() as lines, pytest.raises(InvalidStatus) as refused:
        async with knocking(sandbox, name):
            pass
    assert status_of(refused) == 403
    assert all(len(line["path"]) < 200 for line in lines)


async def test_an_answer_to_an_earlier_challenge_is_worth_nothing(site: Site) -> None:
    sandbox, *_ = await site.sandboxes()
    async with knocking(sandbox) as first, knocking(sandbox) as second:
        answer = answer_to(str(await first.recv()), sandbox.name, told(sandbox).secret)
        await second.recv()
        await second.send(answer)
        with pytest.raises(ConnectionClosed):
            await second.recv()


@pytest.mark.parametrize("text", ["{}", "x" * 2000, '{"nonce": 1, "proof": 2}', b"\0" * 100])
async def test_what_is_no_answer_is_refused(site: Site, text: str | bytes) -> None:
    sandbox, *_ = await site.sandboxes()
    async with knocking(sandbox) as client:
        await client.recv()
        await client.send(text)
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def test_a_client_of_another_protocol_is_refused(site: Site) -> None:
    sandbox, *_ = await site.sandboxes()
    with pytest.raises(InvalidStatus) as refused:
        async with knocking(sandbox, subprotocol="kohakuriver.tunnel.v1"):
            pass
    assert status_of(refused) == 422


async def test_a_secret_ends_with_its_sandbox(site: Site) -> None:
    sandbox, *_ = await site.sandboxes()
    place = seen_in(sandbox).parent
    assert (place / PLACE.strip("/")).is_dir()
    folders = site.lab.settings.state_dir / "tunnels"
    (own,) = [path for path in folders.iterdir() if sandbox.name in (path / "runner.json").read_text()]
    async with connected(sandbox) as client:
        await site.lab.engine.sandboxes.destroy(sandbox.id)
        with pytest.raises(ConnectionClosed):
            await client.recv()
    assert not site.lab.tunnels.connected(sandbox.id)
    assert site.lab.tunnels.named(sandbox.name) is None
    assert not own.exists()


async def test_a_later_runner_knows_the_secrets_and_tells_where_it_is(tmp_path: Path) -> None:
    async with site_at(tmp_path, LOOPBACK) as site:
        lab = site.lab
        sandbox, *_ = await site.sandboxes()
        before = told(sandbox)
        spec = lab.spec("/bin/sleep", "600")
        await lab.engine.create(spec, ignore)
        await lab.engine.start(spec.task_id, 1)
        await abandon(lab.engine)
        lab.tunnels.is_ready = False
        with pytest.raises(InvalidStatus) as refused:
            async with connected(sandbox):
                pass
        assert status_of(refused) == 503
        later = SandboxTunnels()
        lab.tunnels = later
        lab.engine = lab.new_engine(tunnels_to=RunnerPlace(site.gateway, site.port + 1))
        await lab.engine.open()
        for kept in lab.engine.pool.idle:
            after, known = told(kept), later.named(kept.name)
            assert after.port == site.port + 1
            assert known is not None
            assert (known.secret, known.address) == (after.secret, kept.address)
        held = (await lab.engine.known_containers.find(spec.task_id, 1)).sandbox
        assert held is not None
        known = later.named(held.name)
        assert known is not None
        assert known.secret == told(held).secret
        assert before.secret in {told(one).secret for one in (*lab.engine.pool.idle, held)}


async def test_a_folder_is_the_sandboxs_alone_and_cannot_be_written(site: Site) -> None:
    sandbox, other = await site.sandboxes()
    assert told(sandbox).secret != told(other).secret
    with pytest.raises(OSError, match="Read-only"):
        (seen_in(sandbox) / "secret").write_text("mine")
    spec = site.lab.spec("/bin/ls", PLACE)
    await site.lab.engine.create(spec, ignore)
    await site.lab.engine.start(spec.task_id, 1)
    assert (await site.lab.engine.wait(spec)).exit_code != 0
    await site.lab.engine.remove(spec.task_id, 1)
    assert (site.lab.settings.state_dir / "tunnels").stat().st_mode & 0o777 == 0o700


async def test_without_tunnels_there_is_no_folder_and_the_route_says_why(tmp_path: Path) -> None:
    async with site_at(tmp_path, EVERYWHERE, enabled=False) as site:
        sandbox, *_ = await site.sandboxes()
        assert not seen_in(sandbox).exists()
        network = WorkloadNetwork.of(site.lab.settings.network_subnet, site.gateway)
        assert network.holds(sandbox.address)
        request = head("GET", "/ws/tunnel/x", Upgrade="websocket", Connection="Upgrade", **_HANDSHAKE)
        # Where control ports are closed this one is closed too, so it is asked with that undone.
        await abandon(site.lab.engine)
        site.lab.engine = site.lab.new_engine(egress=EgressSettings())
        await site.lab.engine.open()
        assert await site.ask((await site.sandboxes())[0], request) == 400


_HANDSHAKE = {
    "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Protocol": "kohakuriver.tunnel.v2",
}


# Two tables


def _requests() -> list[bytes]:
    """What a workload may try to reach a route of the host with."""
    plain = [
        head(route.method, route.path.format_map(_Sevens()), Content_Length=0) for route in declared_routes()
    ]
    streams = [
        head("GET", path, Upgrade="websocket", Connection="Upgrade", **_HANDSHAKE) for path in HOST_STREAMS
    ]
    forged = {
        "Host": "127.0.0.1",
        "X_Forwarded_For": "127.0.0.1",
        "X_Real_IP": "127.0.0.1",
        "Forwarded": "for=127.0.0.1",
        "X_Original_URL": "/api/orders",
    }
    keys = Identity.generate().link_keys(Identity.generate().public_key, Side.HOST)
    call = Caller(Side.HOST).call("n1", keys, "GET", "/api/docker/images", b"")
    tricks = [
        head("GET", "/healthz", **forged),
        head("GET", "//healthz"),
        head("GET", "/ws/tunnel/../../healthz"),
        head("GET", "/ws/tunnel/%2e%2e/%2e%2e/healthz"),
        head("GET", "http://127.0.0.1/healthz"),
        head("GET", "/api/docker/images", Authorization=call.credential),
        head("OPTIONS", "*"),
    ]
    return plain + streams + tricks


class _Sevens(dict[str, str]):
    def __missing__(self, _name: str) -> str:
        return "7"


async def test_no_request_of_a_workload_reaches_a_route_of_the_host(site: Site) -> None:
    sandbox, *_ = await site.sandboxes()
    for request in _requests():
        assert await site.ask(sandbox, request) in (400, 404), request
    async with connected(sandbox):
        assert await site.ask(sandbox, head("GET", "/healthz")) == 404, "its proof is worth nothing elsewhere"
    assert site.host_table.reached == []


@pytest.mark.parametrize("path", ["/api/docker/images", *HOST_STREAMS])
async def test_who_asks_for_a_route_of_the_host_is_logged(site: Site, path: str) -> None:
    sandbox, *_ = await site.sandboxes()
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", **_HANDSHAKE} if path in HOST_STREAMS else {}
    with refusals() as lines:
        assert await site.ask(sandbox, head("GET", path, **headers)) == 404
    (line,) = lines
    assert (line["address"], line["path"]) == (sandbox.address, path)
    assert line["reason"] == "there is nothing here for workloads"


async def test_the_node_itself_reaches_the_hosts_table_and_never_the_workloads(site: Site) -> None:
    assert await site.ask_from_node(head("GET", "/healthz")) == 200
    sandbox, *_ = await site.sandboxes()
    path = f"/ws/tunnel/{sandbox.name}"
    request = head("GET", path, Upgrade="websocket", Connection="Upgrade", **_HANDSHAKE)
    assert await site.ask_from_node(request) == 403
    assert site.host_table.reached == ["/healthz", path]
    assert not site.lab.tunnels.connected(sandbox.id)


async def test_at_a_listener_for_workloads_nobody_else_finds_anything(tmp_path: Path) -> None:
    async with site_at(tmp_path, LOOPBACK) as site:
        assert await ask(f"{site.gateway}:{site.port}", head("GET", "/healthz")) == 404
        assert site.host_table.reached == []


async def test_the_listener_outlasts_the_bridge(site: Site) -> None:
    lab = site.lab
    sandbox, *_ = await site.sandboxes()
    async with connected(sandbox):
        pass
    await lab.engine.close()
    await lab.api.json("DELETE", f"networks/{lab.settings.network_name}")
    lab.engine = lab.new_engine()
    await lab.engine.open()
    sandbox, *_ = await site.sandboxes()
    async with connected(sandbox):
        assert lab.tunnels.connected(sandbox.id)


async def test_only_the_gateways_address_is_open_at_the_runners_port(tmp_path: Path) -> None:
    async with site_at(tmp_path, EVERYWHERE) as site:
        sandbox, *_ = await site.sandboxes()
        assert await site.ask(sandbox, head("GET", "/healthz")) == 404
        shown = subprocess.run(["ip", "-4", "-o", "addr", "show", "docker0"], capture_output=True, check=True)
        elsewhere = shown.stdout.decode().split()[3].partition("/")[0]
        with pytest.raises(ConnectionRefusedError):
            await dial(sandbox, elsewhere, site.port)
        with socket.create_server((site.gateway, site.host_port)), pytest.raises(ConnectionRefusedError):
            await dial(sandbox, site.gateway, site.host_port)


# What one can take up


async def test_a_flood_from_one_sandbox_keeps_nobody_else_out(site: Site) -> None:
    sandbox, other = await site.sandboxes()
    with capture_logs() as lines, contextlib.ExitStack() as flood:
        for _ in range(300):
            connection = flood.enter_context(await dial(sandbox, site.gateway, site.port))
            with contextlib.suppress(OSError):
                connection.send(b"GET /" + b"a" * 2000)
        async with connected(other):
            assert await site.ask_from_node(head("GET", "/healthz")) == 200
    sent_away = [line for line in lines if line["event"] == "stranger_sent_away"]
    assert {line["address"] for line in sent_away} == {sandbox.address}


async def test_who_has_proven_nothing_is_not_listened_to_for_long(site: Site) -> None:
    sandbox, *_ = await site.sandboxes()
    with capture_logs() as lines:
        async with knocking(sandbox) as client:
            await client.recv()
            with pytest.raises(ConnectionClosed):
                await client.send(_endless())
    assert "a WebSocket that proves nothing" in [line.get("reason") for line in lines]


async def _endless() -> AsyncIterator[bytes]:
    """A message in pieces, whose end never comes."""
    while True:
        yield b"a" * 8192
