"""What is done about links, addresses and routes, for anything that may be there."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.network.found import Found, FoundLink, FoundRoute
from kohakuriver.network.plan import plan
from kohakuriver.network.wanted import (
    ALL_MACS,
    Address,
    Attachment,
    Bridge,
    BridgePort,
    ForwardingEntry,
    Marks,
    Neighbour,
    Route,
    Setting,
    Vxlan,
    Wanted,
)
from support.machine.links_stand_in import carried_out

MARKS = Marks(("kohaku-",), 201, elsewhere=frozenset({IPv4Address("10.0.0.1")}))
GUEST = IPv4Address("10.1.0.254")
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02", ALL_MACS)
NAMES = ("kohaku-overlay", "kohaku-vx", "kohaku-old", "br-other", "veth-w")
ADDRESSES = tuple(map(IPv4Address, ("192.0.2.1", "192.0.2.2", "10.1.0.1", "10.2.0.1")))
NETWORKS = (IPv4Network("10.2.0.0/16"), IPv4Network("10.3.0.0/16"))
WANTED = Wanted(
    replace(MARKS, guests=frozenset({GUEST})),
    links=(
        Vxlan(
            "kohaku-vx", MACS[1], 1450, 100, 4789, ADDRESSES[0], BridgePort("kohaku-overlay", isolated=True)
        ),
        Bridge("kohaku-overlay", MACS[0], 1450),
    ),
    attachments=(Attachment("veth-w", "kohaku-overlay"),),
    addresses=(
        Address("kohaku-overlay", IPv4Interface("10.1.0.1/16")),
        Address("cable", IPv4Interface("10.0.0.1/32")),
    ),
    routes=(Route(NETWORKS[0], ADDRESSES[3], "kohaku-overlay", ADDRESSES[2]),),
    neighbours=(Neighbour("kohaku-overlay", ADDRESSES[3], MACS[1]),),
    forwarding=(
        ForwardingEntry("kohaku-vx", MACS[1]),
        ForwardingEntry("kohaku-vx", MACS[1], ADDRESSES[1]),
        ForwardingEntry("kohaku-vx", ALL_MACS, ADDRESSES[1]),
    ),
    settings=(Setting("kohaku-overlay", "send_redirects", 0),),
)
CABLE = FoundLink("cable", "veth", MACS[0], 1500, True)
EMPTY = Found(
    {"cable": CABLE, "veth-w": replace(CABLE, name="veth-w")},
    (Address("cable", IPv4Interface("192.0.2.1/24")),),
)
DONE = carried_out(EMPTY, plan(EMPTY, WANTED))


def place_of(one: Neighbour | ForwardingEntry) -> object:
    """There is one of each place."""
    if isinstance(one, Neighbour):
        return one.link, one.address
    return one.link, one.mac, one.destination is None


@st.composite
def anything(draw: st.DrawFn) -> Found:
    """A machine on which all sorts of programs and people have been."""
    names = [*draw(st.sets(st.sampled_from(NAMES))), "cable"]
    base = draw(st.sampled_from([EMPTY, DONE]))
    links = {name: base.links[name] for name in names if name in base.links and draw(st.booleans())}
    for name in names:
        kind = draw(st.sampled_from(["bridge", "vxlan", "veth", ""]))
        data: dict[str, Any] = {"id": draw(st.sampled_from([7, 100])), "port": 4789, "local": "192.0.2.1"}
        data |= (
            {"learning": draw(st.booleans())} if kind == "vxlan" else {"stp_state": draw(st.integers(0, 1))}
        )
        made = FoundLink(
            name, kind, draw(st.sampled_from(MACS)), draw(st.sampled_from([1450, 1500])), data=data
        )
        links.setdefault(name, replace(made, is_up=draw(st.booleans())))
    bridges = [link.name for link in links.values() if link.kind == "bridge"]
    for link in list(links.values()):
        if link.kind != "bridge" and bridges and draw(st.booleans()):
            links[link.name] = replace(link, master=draw(st.sampled_from(bridges)))
    here = st.sampled_from(sorted(links))
    address = st.sampled_from(ADDRESSES)
    mac = st.sampled_from(MACS[:2])
    interfaces = st.sampled_from([IPv4Interface((one, 16)) for one in (*ADDRESSES, GUEST)])
    routes = st.builds(
        FoundRoute, st.sampled_from(NETWORKS), here, address, st.none(), st.just(0), st.sampled_from([3, 201])
    )
    entries = st.builds(ForwardingEntry, here, mac, address | st.none())
    found = Found(
        links,
        (*EMPTY.addresses, *draw(st.lists(st.builds(Address, here, interfaces), max_size=4, unique=True))),
        tuple(draw(st.lists(routes, max_size=3, unique=True))),
        frozenset(draw(st.lists(st.builds(Neighbour, here, address, mac), max_size=3, unique_by=place_of))),
        frozenset(
            one
            for one in draw(st.lists(entries, max_size=4, unique_by=place_of))
            if one.destination or links[one.link].master
        ),
    )
    return found if base is EMPTY else _joined(found, base)


def _joined(found: Found, base: Found) -> Found:
    """With what is on the links of the base that are as they were."""
    kept = {name for name, link in found.links.items() if base.links.get(name) == link}
    rest = base.without(base.links.keys() - kept)
    neighbours = {place_of(one): one for one in (*found.neighbours, *rest.neighbours)}
    entries = {place_of(one): one for one in (*found.forwarding, *rest.forwarding)}
    return replace(
        found,
        addresses=tuple(dict.fromkeys((*found.addresses, *rest.addresses))),
        neighbours=frozenset(neighbours.values()),
        forwarding=frozenset(entries.values()),
        settings=rest.settings,
    )


def of_others(found: Found) -> Found:
    """What is none of ours, whatever bridge of ours it is attached to."""
    marks = WANTED.marks
    names = {name for name in found.links if not marks.has_link(name)}
    links = {
        name: replace(link, master="" if marks.has_link(link.master) else link.master, port={})
        for name, link in found.links.items()
        if name in names
    }
    return Found(
        links,
        tuple(
            one for one in found.addresses if one.link in names and one.interface.ip not in marks.elsewhere
        ),
        tuple(one for one in found.routes if one.protocol != marks.protocol and one.link in names),
        frozenset(one for one in found.neighbours if one.link in names),
        frozenset(one for one in found.forwarding if one.link in names and one.destination),
    )


def test_what_is_as_wanted_is_left_as_it_is() -> None:
    assert not plan(DONE, WANTED)
    assert plan(EMPTY, WANTED).subjects[:2] == [
        "the bridge kohaku-overlay",
        "the MTU 1450 of the bridge kohaku-overlay",
    ]


@given(anything())
def test_whatever_there_was_it_is_as_wanted_afterwards_and_others_have_theirs(found: Found) -> None:
    routes = (one for one in found.routes if one.protocol == MARKS.protocol or one.network != NETWORKS[0])
    found = replace(found, routes=tuple(routes))  # none of others is in the way
    after = carried_out(found, plan(found, WANTED))
    assert not plan(after, WANTED)
    assert of_others(after) == of_others(found)


@given(anything())
def test_whatever_there_was_nothing_of_ours_is_left(found: Found) -> None:
    nothing = Wanted(MARKS)
    after = carried_out(found, plan(found, nothing))
    assert not plan(after, nothing)
    assert not [name for name in after.links if name.startswith("kohaku")]
    assert {one.protocol for one in after.routes} <= {3}
    assert of_others(after) == of_others(found)


def test_a_link_that_was_made_anew_gets_its_ports_settings_and_all_that_was_on_it() -> None:
    broken = {**DONE.links, "kohaku-overlay": replace(DONE.links["kohaku-overlay"], kind="veth")}
    made = plan(replace(DONE, links=broken), WANTED)
    lines = [command.line for command in (*made.links, *made.forwarding)]
    assert lines == [
        "link del dev kohaku-overlay",
        "link add name kohaku-overlay address 02:00:00:00:00:01 type bridge stp_state 0 no_linklocal_learn 1",
        "link set dev kohaku-overlay mtu 1450",
        "link set dev kohaku-overlay up",
        "link set dev kohaku-vx master kohaku-overlay",
        "link set dev kohaku-vx type bridge_slave learning off flood off mcast_flood off bcast_flood off "
        "neigh_suppress off isolated on",
        "addr replace 10.1.0.1/16 dev kohaku-overlay",
        "neigh replace 10.2.0.1 lladdr 02:00:00:00:00:02 dev kohaku-overlay nud permanent",
        "route replace 10.2.0.0/16 via 10.2.0.1 dev kohaku-overlay onlink src 10.1.0.1 metric 0 proto 201",
        "link set dev veth-w master kohaku-overlay",
        "fdb replace 02:00:00:00:00:02 dev kohaku-vx master static",
    ]
    assert made.settings == WANTED.settings


def test_a_bridge_that_loses_a_port_forgets_what_was_behind_it() -> None:
    elsewhere = replace(DONE.links["kohaku-vx"], master="br-other")
    found = replace(DONE, links={**DONE.links, "kohaku-vx": elsewhere})
    assert [command.line for command in plan(found, WANTED).forwarding] == [
        "fdb replace 02:00:00:00:00:02 dev kohaku-vx master static"
    ]


def test_what_is_no_port_of_a_workload_is_not_attached() -> None:
    """A workload may give its end of a link any name, and so may whoever names links here."""
    other = replace(DONE, links={**DONE.links, "veth-w": replace(CABLE, name="veth-w", kind="")})
    assert not plan(other, WANTED)


def test_a_route_of_others_in_the_way_is_named_and_all_else_is_done() -> None:
    route = FoundRoute(NETWORKS[0], "cable", ADDRESSES[0], protocol=3)
    made = plan(replace(EMPTY, routes=(route,)), WANTED)
    (obstacle,) = made.obstacles
    assert "the route 10.2.0.0/16 of this machine (interface cable) is in the way" in obstacle
    assert replace(made, obstacles=()) == plan(EMPTY, replace(WANTED, routes=()))
    other = plan(replace(EMPTY, routes=(replace(route, metric=5),)), WANTED)
    assert other == plan(EMPTY, WANTED)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Bridge("kohaku overlay", MACS[0], 1450),
        lambda: Bridge("kohaku-overlay\nlink", MACS[0], 1450),
        lambda: Bridge("-h", MACS[0], 1450),
        lambda: Bridge("kohaku-overlay-1", MACS[0], 1450),
        lambda: Bridge("kohaku-overlay", "03:00:00:00:00:01", 1450),
        lambda: Bridge("kohaku-overlay", f"{MACS[0]} up", 1450),
        lambda: Bridge("kohaku-overlay", MACS[0], 67),
        lambda: Vxlan("kohaku-vx", MACS[0], 1450, 1 << 24, 4789, ADDRESSES[0]),
        lambda: Vxlan("kohaku-vx", MACS[0], 1450, 100, 0, ADDRESSES[0]),
        lambda: ForwardingEntry("kohaku-vx", ALL_MACS),
        lambda: Setting("kohaku-vx", "../forwarding", 1),
        lambda: Setting("..", "forwarding", 1),
        lambda: Marks((), 201),
        lambda: Marks(("",), 201),
        lambda: Marks(("kohaku-",), 2),
        lambda: Wanted(MARKS, links=(Bridge("br-other", MACS[0], 1450),)),
        lambda: Wanted(MARKS, links=(Bridge("kohaku-x", MACS[0], 1450),) * 2),
        lambda: Wanted(MARKS, addresses=(Address("cable", IPv4Interface("10.1.0.1/16")),)),
        lambda: Wanted(MARKS, neighbours=(Neighbour("cable", ADDRESSES[0], MACS[0]),)),
        lambda: Wanted(MARKS, forwarding=(ForwardingEntry("cable", MACS[0]),)),
    ],
)
def test_what_cannot_be_or_is_none_of_ours_is_not_wanted(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        make()
