"""The texts of the two filter tables, and what the settings of the egress filter mean on this machine."""

import socket

import pytest

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.network.egress import parse_place
from kohakuriver.runner.network import egress_rules, pin_rules
from kohakuriver.runner.network.egress_rules import Closed, EgressSettings, addresses_of, closed_places
from kohakuriver.runner.network.pin_rules import Port, checked_port, elements_of

ONE = Port("veth1", "02:42:0a:00:00:02", "10.0.0.2")
OTHER = Port("veth2", "02:42:0a:00:00:03", "10.0.0.3")
GATEWAY = "10.0.0.1"


def test_a_host_on_this_machine_is_closed_on_all_its_addresses() -> None:
    closed = closed_places(EgressSettings(("control",), 8001, "h", 8000), ["127.0.0.1"])
    assert closed == Closed((), node_ports=frozenset((8000, 8001, 8002)))


def test_a_host_elsewhere_is_closed_where_it_is_and_the_node_keeps_its_own_ports() -> None:
    closed = closed_places(EgressSettings(("control", "metadata"), 8001, "h", 9000), ["192.0.2.7"])
    places = tuple(map(parse_place, ("192.0.2.7:9000", "192.0.2.7:8002")))
    assert closed == Closed(places, metadata=True, node_ports=frozenset((8001,)))


def test_without_the_word_control_the_host_is_not_even_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "getaddrinfo")
    settings = EgressSettings(("10.0.0.0/8", "[fd00::1]:80"), 8001, "host.invalid", 8000)
    closed = closed_places(settings, addresses_of(settings))
    assert closed == Closed((parse_place("10.0.0.0/8"), parse_place("[fd00::1]:80")))


def test_a_destination_is_judged_before_and_after_its_translation() -> None:
    text = egress_rules.whole_table("t", "br-x", Closed((parse_place("192.0.2.7:80"),)))
    assert "ip daddr { 192.0.2.7/32 } meta l4proto { tcp, udp, sctp, dccp } th dport 80 reject" in text
    before = "ct original ip daddr { 192.0.2.7/32 } meta l4proto { tcp, udp, sctp, dccp }"
    assert f"{before} ct original proto-dst 80 reject" in text


def test_the_workload_endpoints_stay_open_whatever_is_closed() -> None:
    settings = EgressSettings(("control", "10.0.0.0/8"), 8001, "h", 8000, endpoints_at=GATEWAY)
    text = egress_rules.whole_table("t", "br-x", closed_places(settings, ["127.0.0.1"], [GATEWAY]))
    into_node = text.partition("chain into_node")[2]
    opened = (
        f"ip daddr {GATEWAY} tcp dport 8001 ct original ip daddr {GATEWAY} ct original proto-dst 8001 accept"
    )
    assert into_node.index(opened) < into_node.index("jump closed")
    assert text.count("8001 accept") == 1, "and not on the way through the node"
    assert (
        "accept"
        not in egress_rules.whole_table("t", "b", Closed())
        .partition("into_node")[2]
        .partition("reply accept")[2]
    ), "nothing is opened where there are none"


def test_places_that_overlap_are_written_once() -> None:
    places = tuple(map(parse_place, ("10.0.0.0/8", "10.1.0.0/16", "10.0.0.1", "10.0.0.1")))
    assert "ip daddr { 10.0.0.0/8 }  reject" in egress_rules.whole_table("t", "b", Closed(places))


@pytest.mark.parametrize("text", ["", "host", "10.0.0.1:", "10.0.0.1:0", "[::1]:", "::1:80x", "10.0.0.1/8"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_place(text)


@pytest.mark.parametrize(
    "facts",
    [
        ("veth1", "02:42:0a:00:00:02", "10.0.0.2 } ; drop"),
        ('veth1" accept', "02:42:0a:00:00:02", "10.0.0.2"),
        ("veth1", "02:42:0a:00:00", "10.0.0.2"),
        ("veth1", "02:42:0a:00:00:02", "fd00::1"),
        ("a-name-that-is-too-long", "02:42:0a:00:00:02", "10.0.0.2"),
    ],
)
def test_nothing_but_a_port_gets_into_the_text_for_nft(facts: tuple[str, str, str]) -> None:
    with pytest.raises(ValueError, match=r"."):
        checked_port(*facts)


def test_of_a_change_only_the_difference_is_written() -> None:
    before, after = elements_of([ONE], GATEWAY), elements_of([OTHER], GATEWAY)
    assert pin_rules.changes("t", before, before) == ""
    assert pin_rules.changes("t", before, after).splitlines() == [
        'delete element bridge t ports { "veth1" }',
        "delete element bridge t addresses { 10.0.0.2 }",
        'delete element bridge t pinned { "veth1" . 02:42:0a:00:00:02 . 10.0.0.2 }',
        'add element bridge t ports { "veth2" }',
        "add element bridge t addresses { 10.0.0.3 }",
        'add element bridge t pinned { "veth2" . 02:42:0a:00:00:03 . 10.0.0.3 }',
    ]


def test_an_address_that_goes_to_another_port_stays_closed_to_the_rest() -> None:
    moved = Port("veth9", OTHER.mac, ONE.address)
    text = pin_rules.changes("t", elements_of([ONE], GATEWAY), elements_of([moved], GATEWAY))
    assert " addresses " not in text


def test_ports_of_the_node_are_closed_on_each_of_its_addresses() -> None:
    """A connection to one of them may be translated, and does not come to the node itself then."""
    closed = closed_places(EgressSettings(("control",), 8001, "h", 9000), ["192.0.2.7"], ["10.0.0.1"])
    assert parse_place("10.0.0.1:8001") in closed.places
    assert parse_place("10.0.0.1:9000") not in closed.places
    found = egress_rules.addresses_of_node()
    assert not [address for address in found if address.startswith("127.")]
