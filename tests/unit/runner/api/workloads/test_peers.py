"""Which table answers: a matter of the address at the other end, and of nothing that a request says."""

import asyncio
from typing import Any

import pytest

from kohakuriver.front_door import ConnectionLimits
from kohakuriver.runner.api.workloads.peers import TablesByPeer, WorkloadNetwork, peer_address
from support.messages.asgi_call import call

NETWORK = WorkloadNetwork.of("172.30.0.0/16", "172.30.0.1")
WORKLOAD, NODE = "172.30.0.5", "127.0.0.1"


@pytest.mark.parametrize(
    ("address", "holds"),
    [
        ("172.30.0.2", True),
        ("172.30.255.254", True),
        ("::ffff:172.30.0.2", True),
        ("172.30.0.1", False),
        ("::ffff:172.30.0.1", False),
        ("172.31.0.2", False),
        ("127.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("", False),
        ("testclient", False),
    ],
)
def test_a_workload_is_whoever_is_on_its_network_but_for_the_gateway(address: str, holds: bool) -> None:
    assert NETWORK.holds(address) is holds


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("::ffff:172.30.0.2", 1), "172.30.0.2"),
        (("172.30.0.2", 1), "172.30.0.2"),
        (None, ""),
        (("::1", 1), "::1"),
    ],
)
def test_addresses_are_compared_in_one_form(client: tuple[str, int] | None, address: str) -> None:
    assert peer_address({"client": client}) == address


def _table(name: str, reached: list[str]) -> Any:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        reached.append(f"{name} {scope['path']}")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


@pytest.mark.parametrize(
    ("client", "name"),
    [(WORKLOAD, "workloads"), (NODE, "host"), ("172.30.0.1", "host"), ("10.0.0.1", "host")],
)
@pytest.mark.parametrize("path", ["/api/orders", "/ws/tunnel/kohakuriver-sandbox-1"])
def test_neither_path_nor_header_leads_into_the_other_table(client: str, name: str, path: str) -> None:
    reached: list[str] = []
    app = TablesByPeer(NETWORK, _table("workloads", reached), _table("host", reached))
    forged = {"Host": "172.30.0.1", "X-Forwarded-For": f"{NODE}, {WORKLOAD}", "Forwarded": f"for={WORKLOAD}"}
    asyncio.run(call(app, "GET", path, forged, client=client))
    assert reached == [f"{name} {path}"]


def test_an_address_of_a_workload_has_few_connections_and_others_as_many_as_before() -> None:
    limits = ConnectionLimits(narrow_network=NETWORK.subnet)
    assert limits.connections_of("172.30.0.9") == 16
    for group in ("172.31.0.9", "2001:db8::/64", ""):
        assert limits.connections_of(group) == ConnectionLimits().connections_of("172.30.0.9") == 2048
