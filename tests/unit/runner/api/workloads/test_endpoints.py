"""The workloads' table by itself: who is let in to which route, and what is said to the others."""

import asyncio
import json
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from kohakuriver.runner.api.routes import declared_routes
from kohakuriver.runner.api.services import Permission
from kohakuriver.runner.api.workloads.endpoints import WorkloadEndpoints, WorkloadServices, workload_routes
from kohakuriver.runner.tunnels.client_program import SWITCHED_OFF, TunnelClient
from kohakuriver.runner.tunnels.sandbox_tunnels import SandboxIdentity, SandboxTunnels
from kohakuriver.wire.tunnel.frames import SUBPROTOCOL
from kohakuriver.wire.tunnel.proof import Prover, new_nonce, proof
from support.messages.asgi_call import Answer, call

ONE = SandboxIdentity("id-1", "kohakuriver-sandbox-1", "172.30.0.2", b"1" * 32)
OTHER = SandboxIdentity("id-2", "kohakuriver-sandbox-2", "172.30.0.3", b"2" * 32)
PATH = f"/ws/tunnel/{ONE.name}"


def known(*, ready: bool = True, enabled: bool = True) -> SandboxTunnels:
    tunnels = SandboxTunnels(client=TunnelClient(None, "" if enabled else SWITCHED_OFF))
    tunnels.learn(ONE)
    tunnels.learn(OTHER)
    tunnels.is_ready = ready
    return tunnels


def ask(
    path: str = PATH,
    address: str = ONE.address,
    *,
    kind: str = "websocket",
    ready: bool = True,
    enabled: bool = True,
    subprotocol: str = SUBPROTOCOL,
) -> Answer:
    app = WorkloadEndpoints(WorkloadServices(known(ready=ready, enabled=enabled)))
    headers = {"Sec-WebSocket-Protocol": subprotocol}
    return asyncio.run(call(app, "GET", path, headers, kind=kind, client=address))


def test_each_table_has_routes_of_its_own_permission_alone() -> None:
    assert {route.permission for route in workload_routes()} == {Permission.SANDBOX}
    assert {route.permission for route in declared_routes()} == {Permission.HOST}
    assert not {route.path for route in workload_routes()} & {route.path for route in declared_routes()}


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"path": "/ws/tunnel/kohakuriver-sandbox-3"}, 403, "no sandbox of this name"),
        ({"path": f"/ws/tunnel/{OTHER.name}"}, 403, "another address"),
        ({"address": OTHER.address}, 403, "another address"),
        ({"path": "/ws/tunnel/"}, 404, "nothing here"),
        ({"path": f"{PATH}/x"}, 404, "nothing here"),
        ({"path": "/ws/forward/kohakuriver-vps-7/22"}, 404, "nothing here"),
        ({"ready": False}, 503, "try again"),
        ({"enabled": False}, 400, "TUNNEL_ENABLED"),
        ({"subprotocol": "kohakuriver.tunnel.v1"}, 422, SUBPROTOCOL),
        ({"kind": "http"}, 404, "nothing here"),
        ({"kind": "http", "path": "/api/orders"}, 404, "nothing here"),
    ],
)
def test_who_is_not_let_in_is_told_why_before_the_connection_is_one(
    changes: dict[str, Any], status: int, words: str
) -> None:
    answer = ask(**changes)
    assert answer.status == status
    assert words in answer.json["detail"]


class Client:
    """The other end of a WebSocket without a network. `says`: given the challenge, its answer."""

    def __init__(self, tunnels: SandboxTunnels) -> None:
        self.tunnels = tunnels
        self.app = WorkloadEndpoints(WorkloadServices(tunnels))
        self.heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.says: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.proven: list[str] = []

    def prove(self, caller: str) -> None:
        """What the server is told."""
        self.proven.append(caller)

    def begin(self) -> "asyncio.Task[None]":
        self.says.put_nowait({"type": "websocket.connect"})
        scope = {
            "type": "websocket",
            "path": PATH,
            "client": (ONE.address, 1),
            "subprotocols": [SUBPROTOCOL],
            "kohakuriver.front_door": self,
        }
        return asyncio.create_task(self._serve(scope))

    async def _serve(self, scope: dict[str, Any]) -> None:
        async def send(message: MutableMapping[str, Any]) -> None:
            self.heard.put_nowait(dict(message))

        await self.app(scope, self.says.get, send)

    async def challenge(self) -> str:
        accepted = await self.heard.get()
        assert accepted == {"type": "websocket.accept", "subprotocol": SUBPROTOCOL}
        return str(json.loads((await self.heard.get())["text"])["nonce"])

    def answer(self, secret: bytes, nonce: str, own: str) -> None:
        self.says.put_nowait(_text(own, proof(secret, Prover.CLIENT, ONE.name, nonce, own)))


def test_a_sandbox_that_has_proven_itself_is_connected_and_known_to_the_server() -> None:
    async def scenario() -> None:
        client, own = Client(known()), new_nonce()
        serving = client.begin()
        nonce = await client.challenge()
        assert client.proven == []
        client.answer(ONE.secret, nonce, own)
        confirmed = json.loads((await client.heard.get())["text"])
        assert confirmed == {"proof": proof(ONE.secret, Prover.RUNNER, ONE.name, nonce, own)}
        await asyncio.sleep(0)
        assert client.proven == [ONE.id]
        assert client.tunnels.connected(ONE.id)
        client.says.put_nowait({"type": "websocket.disconnect", "code": 1005})
        await serving
        assert not client.tunnels.connected(ONE.id)

    asyncio.run(scenario())


def _text(own: str, proven: str) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": json.dumps({"nonce": own, "proof": proven})}


OWN = new_nonce()
WRONG: dict[str, Callable[[str], dict[str, Any]]] = {
    "another's secret": lambda nonce: _text(OWN, proof(OTHER.secret, Prover.CLIENT, ONE.name, nonce, OWN)),
    "another's name": lambda nonce: _text(OWN, proof(ONE.secret, Prover.CLIENT, OTHER.name, nonce, OWN)),
    "another challenge": lambda _: _text(OWN, proof(ONE.secret, Prover.CLIENT, ONE.name, OWN, OWN)),
    "the runner's own words": lambda nonce: _text(
        OWN, proof(ONE.secret, Prover.RUNNER, ONE.name, nonce, OWN)
    ),
    "the challenge again": lambda nonce: _text(nonce, nonce),
    "bytes": lambda _: {"type": "websocket.receive", "bytes": bytes(64)},
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_proof_connects_nobody_and_stands_in_the_log(kind: str) -> None:
    async def scenario() -> None:
        client = Client(known())
        serving = client.begin()
        client.says.put_nowait(WRONG[kind](await client.challenge()))
        await serving
        assert client.heard.get_nowait() == {"type": "websocket.close", "code": 1008}
        assert client.proven == []
        assert not client.tunnels.connected(ONE.id)

    with capture_logs() as lines:
        asyncio.run(scenario())
    (line,) = lines
    assert (line["event"], line["address"], line["path"]) == ("workload_refused", ONE.address, PATH)
    assert ONE.secret.hex() not in str(line)


CHANGED = SandboxIdentity(ONE.id, ONE.name, "172.30.0.9", ONE.secret)


@pytest.mark.parametrize("change", [lambda t: t.forget(ONE.id), lambda t: t.learn(CHANGED)])
def test_a_sandbox_that_ends_or_moves_amid_its_proof_is_not_connected(
    change: Callable[[SandboxTunnels], None],
) -> None:
    async def scenario() -> None:
        client = Client(known())
        serving = client.begin()
        nonce = await client.challenge()
        change(client.tunnels)
        client.answer(ONE.secret, nonce, OWN)
        await serving
        assert client.proven == []
        assert not client.tunnels.connected(ONE.id)

    asyncio.run(scenario())


def test_refusals_are_told_once_in_a_while_for_each_reason() -> None:
    app = WorkloadEndpoints(WorkloadServices(known()))

    async def scenario() -> None:
        for number in range(500):
            await call(app, "GET", f"/ws/tunnel/x{number}" * 90, kind="websocket", client=ONE.address)

    with capture_logs() as lines:
        asyncio.run(scenario())
    assert len(lines) == 1
    assert len(lines[0]["path"]) <= 100
