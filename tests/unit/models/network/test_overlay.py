"""Overlay arithmetic against the examples of the system's description, and as a whole."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.network.overlay import OverlaySubnet, parse_overlay_subnet

DEFAULT = parse_overlay_subnet("10.128.0.0/12/6/14")


@st.composite
def plans(draw: st.DrawFn) -> OverlaySubnet:
    subnet = draw(st.integers(8, 30))
    node = draw(st.integers(1, 31 - subnet))
    network = 32 - subnet - node
    base = draw(st.integers(0, (1 << network) - 1)) << (32 - network)
    return parse_overlay_subnet(f"{IPv4Address(base)}/{network}/{node}/{subnet}")


def test_default_plan_is_the_described_one() -> None:
    assert DEFAULT.max_runner == 63
    assert DEFAULT.network == IPv4Network("10.128.0.0/12")
    assert DEFAULT.host_address == IPv4Address("10.128.0.1")
    assert DEFAULT.runner_network(1) == IPv4Network("10.128.64.0/18")
    assert DEFAULT.bridge_address(1) == IPv4Address("10.128.64.1")
    assert DEFAULT.host_address_on(1) == IPv4Address("10.128.64.254")
    assert DEFAULT.runner_network(63) == IPv4Network("10.143.192.0/18")
    assert DEFAULT.vxlan_id(100, 63) == 163


@pytest.mark.parametrize("runner", [0, -1, 64])
def test_number_that_no_runner_has_is_refused(runner: int) -> None:
    with pytest.raises(ValueError, match="not within 1 to 63"):
        DEFAULT.runner_network(runner)
    with pytest.raises(ValueError, match="not within 1 to 63"):
        DEFAULT.vxlan_id(100, runner)


def test_vxlan_ids_end_at_24_bits() -> None:
    assert DEFAULT.vxlan_id(16_777_215 - 63, 63) == 16_777_215
    with pytest.raises(ValueError, match="VXLAN id"):
        DEFAULT.vxlan_id(16_777_215 - 62, 63)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10.128.0.0/12/6/13", "12 \\+ 6 \\+ 13 bits are 31, not 32"),
        ("10.128.0.1/12/6/14", "bits set behind its first 12"),
        ("10.128.0.0/18/7/7", "at least 8"),
        ("0.0.0.0/0/16/16", "at least 1"),
        ("10.999.0.0/12/6/14", "not an IPv4 address"),
        ("10.128.0.0/12", "not of the form"),
    ],
)
def test_faulty_plan_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_overlay_subnet(text)


@given(plans(), st.data())
def test_networks_of_runners_are_apart_and_within_the_overlay(
    plan: OverlaySubnet, data: st.DataObject
) -> None:
    assert parse_overlay_subnet(str(plan)) == plan
    one = data.draw(st.integers(1, plan.max_runner))
    other = data.draw(st.integers(1, plan.max_runner))
    network = plan.runner_network(one)
    assert network.subnet_of(plan.network)
    assert network.overlaps(plan.runner_network(other)) == (one == other)
    assert plan.host_address not in network
    for taken in (plan.bridge_address(one), plan.host_address_on(one), network[0], network[-1]):
        assert taken in network
        assert not plan.is_for_workloads(one, taken)
    assert plan.is_for_workloads(one, network[2])
    assert plan.runner_of(network[2]) == one
    assert plan.runner_of(plan.host_address) is None
