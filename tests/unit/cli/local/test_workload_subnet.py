"""Which subnet `up` writes into a new runner's configuration."""

from ipaddress import IPv4Network
from typing import Any

import pytest

from kohakuriver.cli.local.workload_subnet import chosen_network
from kohakuriver.models.network.ipv4_routes import Route

DEFAULTS: dict[str, Any] = {
    "DOCKER_NETWORK_NAME": "kohakuriver-net",
    "DOCKER_NETWORK_SUBNET": "172.30.0.0/16",
    "DOCKER_NETWORK_GATEWAY": "172.30.0.1",
    "OVERLAY_SUBNET": "10.128.0.0/12/6/14",
    "VM_BRIDGE_SUBNET": "10.200.0.0/24",
}
DEFAULT_ROUTE = Route("eth0", IPv4Network("0.0.0.0/0"))


def route(network: str) -> Route:
    return Route("tun0", IPv4Network(network))


def network(name: str, subnet: str, gateway: str = "") -> dict[str, Any]:
    return {"Name": name, "IPAM": {"Config": [{"Subnet": subnet, "Gateway": gateway}]}}


def test_the_default_is_taken_where_it_is_free() -> None:
    chosen = chosen_network(DEFAULTS, [DEFAULT_ROUTE, route("172.17.0.0/16")], [network("x", "10.0.0.0/8")])
    assert (chosen.settings, chosen.notes) == ({}, ())


@pytest.mark.parametrize(
    ("routes", "networks"),
    [
        ([route("172.16.0.0/12")], []),
        ([], [network("x", "172.16.0.0/12")]),
        (
            [route("172.16.0.0/12"), route("10.0.0.0/9"), route("10.144.0.0/12")],
            [network("x", "10.240.0.0/12")],
        ),
        ([route("172.16.0.0/12"), route("10.0.0.0/8")], [network("x", "192.168.128.0/17")]),
    ],
)
def test_what_is_chosen_overlaps_nothing_that_is_there_or_that_a_default_takes(
    routes: list[Route], networks: list[dict[str, Any]]
) -> None:
    chosen = chosen_network(DEFAULTS, [DEFAULT_ROUTE, *routes], networks)
    subnet = IPv4Network(str(chosen.settings["DOCKER_NETWORK_SUBNET"]))
    taken = [each.network for each in routes]
    taken += [IPv4Network(row["IPAM"]["Config"][0]["Subnet"]) for row in networks]
    taken += [IPv4Network("10.128.0.0/12"), IPv4Network("10.200.0.0/24")]
    assert not [each for each in taken if each.overlaps(subnet)]
    assert chosen.settings["DOCKER_NETWORK_GATEWAY"] == str(subnet[1])
    assert "172.30.0.0/16 is taken here" in chosen.notes[0]


def test_a_network_of_that_name_is_used_as_it_is() -> None:
    routes = [Route("br-1", IPv4Network("172.30.0.0/16")), Route("br-2", IPv4Network("172.29.0.0/16"))]
    assert not chosen_network(DEFAULTS, routes, [network("kohakuriver-net", "172.30.0.0/16")]).settings
    other = network("kohakuriver-net", "172.29.0.0/16", "172.29.0.9")
    assert chosen_network(DEFAULTS, routes, [other]).settings == {
        "DOCKER_NETWORK_SUBNET": "172.29.0.0/16",
        "DOCKER_NETWORK_GATEWAY": "172.29.0.9",
    }


def test_where_nothing_is_free_the_default_stays_and_the_runner_says_why() -> None:
    everything = [route(text) for text in ("172.16.0.0/12", "10.0.0.0/8", "192.168.0.0/16")]
    assert not chosen_network(DEFAULTS, everything, []).settings


def test_the_network_of_another_cluster_stays_that_clusters() -> None:
    theirs = network("kohakuriver-net", "172.30.0.0/16") | {"Labels": {"kohakuriver.cluster": "abc"}}
    routes = [Route("br-1", IPv4Network("172.30.0.0/16"))]
    chosen = chosen_network(DEFAULTS, routes, [theirs, network("kohakuriver-net-2", "172.31.0.0/16")])
    assert chosen.settings == {
        "DOCKER_NETWORK_NAME": "kohakuriver-net-3",
        "DOCKER_NETWORK_SUBNET": "172.29.0.0/16",
        "DOCKER_NETWORK_GATEWAY": "172.29.0.1",
    }
