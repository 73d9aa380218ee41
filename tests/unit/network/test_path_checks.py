"""Networks of ours that this machine cannot have: addresses in use, packets that are too large."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from kohakuriver.models.errors import InvalidInput
from kohakuriver.network.found import Found, FoundLink, FoundRoute
from kohakuriver.network.path_checks import check_mtu, check_subnet, path_to
from kohakuriver.network.wanted import Marks

OURS = [Marks(("kohaku-overlay", "kohaku-vx"), 201), Marks(("kohaku-host-",), 202)]
SUBNET = IPv4Network("10.128.0.0/12")
DEFAULT = FoundRoute(IPv4Network("0.0.0.0/0"), "eth0", IPv4Address("192.0.2.254"), metric=100)
NEAR = FoundRoute(IPv4Network("192.0.2.0/24"), "eth0", protocol=2)
TUNNEL = FoundRoute(IPv4Network("198.51.100.0/24"), "tun0", mtu=1400)
LINKS = {"eth0": FoundLink("eth0", mtu=1500), "tun0": FoundLink("tun0", mtu=9000)}
FOUND = Found(LINKS, routes=(DEFAULT, NEAR, TUNNEL))


def on_subnet(network: str, link: str, protocol: int = 3) -> Found:
    return replace(FOUND, routes=(*FOUND.routes, FoundRoute(IPv4Network(network), link, protocol=protocol)))


@pytest.mark.parametrize("network", ["10.128.64.0/18", "10.0.0.0/8", "10.143.255.255/32"])
def test_a_route_into_the_subnet_is_named(network: str) -> None:
    expected = rf"OVERLAY_SUBNET 10.128.0.0/12 overlaps the route {network} .*\(interface br-x\)"
    with pytest.raises(InvalidInput, match=expected) as caught:
        check_subnet(SUBNET, on_subnet(network, "br-x"), OURS, "OVERLAY_SUBNET")
    assert caught.value.field == "OVERLAY_SUBNET"
    with pytest.raises(InvalidInput, match="interface none"):
        check_subnet(SUBNET, on_subnet(network, ""), OURS, "OVERLAY_SUBNET")


def test_routes_of_ours_elsewhere_and_by_default_are_in_no_way() -> None:
    for found in (
        FOUND,
        on_subnet("10.144.0.0/16", "br-x"),
        on_subnet("10.128.64.0/18", "kohaku-overlay", 2),
        on_subnet("10.128.128.0/18", "br-x", 202),
    ):
        check_subnet(SUBNET, found, OURS, "OVERLAY_SUBNET")


def test_a_path_is_as_wide_as_its_route_or_its_link() -> None:
    narrow = (
        r"OVERLAY_MTU 1450 needs 1500 bytes.* to 198.51.100.7 \(interface tun0\) carries 1400; set it to 1350"
    )
    near, far, tunnelled = map(IPv4Address, ("192.0.2.1", "203.0.113.1", "198.51.100.7"))
    check_mtu(1450, [near, far], FOUND, "OVERLAY_MTU")
    check_mtu(1350, [tunnelled], FOUND, "OVERLAY_MTU")
    with pytest.raises(InvalidInput, match=narrow):
        check_mtu(1450, [near, tunnelled], FOUND, "OVERLAY_MTU")
    with pytest.raises(InvalidInput, match="carries 1500; set it to 1450"):
        check_mtu(1451, [far], FOUND, "OVERLAY_MTU")


def test_the_narrowest_route_leads_and_of_two_the_one_with_the_lower_metric() -> None:
    found = replace(FOUND, routes=(*FOUND.routes, replace(DEFAULT, link="tun0", metric=50)))
    path = path_to(IPv4Address("203.0.113.1"), found)
    assert path is not None
    assert path.link == "tun0"
    assert path_to(IPv4Address("203.0.113.1"), replace(FOUND, routes=(NEAR,))) is None
