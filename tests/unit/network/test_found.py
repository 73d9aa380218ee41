"""What `ip` and `bridge` show, with all that is none of ours in it."""

import asyncio
import json
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.network.found import Found, FoundLink, FoundRoute, look
from kohakuriver.network.programs import NetworkFault
from kohakuriver.network.wanted import Address, ForwardingEntry, Neighbour, Setting

MAC = "02:00:00:00:00:01"
INET = {"family": "inet", "local": "10.1.0.1", "prefixlen": 16}
INFO = {"info_kind": "vxlan", "info_data": {"id": 7}, "info_slave_data": {"flood": True}}
LINKS: list[dict[str, Any]] = [
    {},
    {"ifname": "kohaku-vx", "flags": ["UP"], "mtu": 1450, "master": "br", "address": MAC, "linkinfo": INFO},
    {"ifname": "wg 0", "flags": [], "addr_info": [INET]},
    {"ifname": "br", "addr_info": [INET, {"family": "inet6", "local": "fe80::1", "prefixlen": 64}]},
]
ROUTES = [
    {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0", "protocol": "16", "metrics": [{"mtu": 1400}]},
    {"dst": "10.9.0.0/16", "protocol": "3", "nexthops": [{"dev": "br", "weight": 1}, {"dev": "eth0"}]},
    {"dst": "10.8.0.0/16", "type": "6", "protocol": "3", "metric": 5},
    {"dst": "10.7.0.0/16", "dev": "br", "protocol": "201", "prefsrc": "10.1.0.1", "via": {"host": "fe80::1"}},
]
NEIGHBOURS = [
    {"dst": "10.1.0.2", "dev": "br", "lladdr": MAC},
    {"dst": "fe80::2", "dev": "br", "lladdr": MAC},
    {"dst": "10.1.0.3", "dev": "br"},
    {"dst": "10.1.0.4", "dev": "tun", "lladdr": "00:00:00:00"},
]
ENTRIES = [
    {"mac": MAC, "ifname": "kohaku-vx", "dst": "192.0.2.2", "flags": ["self"], "state": "permanent"},
    {"mac": MAC, "ifname": "kohaku-vx", "dst": "fd00::2", "flags": ["self"], "state": "permanent"},
    {"mac": "00:00:00:00:00:00", "ifname": "kohaku-vx", "dst": "192.0.2.3", "flags": ["self"]},
    {"mac": MAC, "ifname": "kohaku-vx", "flags": [], "master": "br", "state": "static"},
    {"mac": "02:00:00:00:00:04", "ifname": "kohaku-vx", "vlan": 1, "master": "br", "state": "static"},
    {"mac": "02:00:00:00:00:05", "ifname": "kohaku-vx", "flags": [], "master": "br", "state": "permanent"},
    {"mac": "02:00:00:00:00:06", "ifname": "veth", "flags": [], "master": "br", "state": ""},
    {"mac": "33:33:00:00:00:01", "ifname": "br", "flags": ["self"], "state": "permanent"},
    {"mac": "33:33:00:00:00:02", "ifname": "veth", "flags": [], "master": "br", "state": "static"},
]


def seen(folder: Path, monkeypatch: pytest.MonkeyPatch, *answers: Any) -> Found:
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    *of_ip, of_bridge = [json.dumps(answer) for answer in answers]
    for name, said in (("ip", "\n".join(of_ip)), ("bridge", of_bridge)):
        (folder / name).write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
        (folder / name).chmod(0o755)
    return asyncio.run(look([Setting("no-such-link", "forwarding", 1), Setting("lo", "forwarding", 1)]))


def test_what_is_there_is_read_and_what_is_none_of_ours_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = seen(tmp_path, monkeypatch, LINKS, ROUTES, NEIGHBOURS, ENTRIES)
    device = FoundLink("kohaku-vx", "vxlan", MAC, 1450, True, "br", {"id": 7}, {"flood": True})
    assert found.links["kohaku-vx"] == device
    assert found.links.keys() == {"kohaku-vx", "wg 0", "br"}
    assert found.addresses == (Address("br", IPv4Interface("10.1.0.1/16")),)
    assert found.routes == (
        FoundRoute(IPv4Network("0.0.0.0/0"), "eth0", IPv4Address("192.0.2.1"), protocol=16, mtu=1400),
        FoundRoute(IPv4Network("10.9.0.0/16"), "br", protocol=3),
        FoundRoute(IPv4Network("10.8.0.0/16"), "", metric=5, protocol=3),
        FoundRoute(IPv4Network("10.7.0.0/16"), "br", source=IPv4Address("10.1.0.1"), protocol=201),
    )
    assert found.neighbours == {Neighbour("br", IPv4Address("10.1.0.2"), MAC)}
    assert found.forwarding == {
        ForwardingEntry("kohaku-vx", MAC, IPv4Address("192.0.2.2")),
        ForwardingEntry("kohaku-vx", "00:00:00:00:00:00", IPv4Address("192.0.2.3")),
        ForwardingEntry("kohaku-vx", MAC),
    }
    assert found.settings.keys() == {("lo", "forwarding")}


@pytest.mark.parametrize(
    "answers",
    [
        ([], [], []),
        ([], [], [], {}),
        ([], [], [], [], []),
        ([], [{"dst": "elsewhere"}], [], []),
        ([7], [], [], []),
    ],
)
def test_an_answer_that_is_not_whole_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: tuple[Any, ...]
) -> None:
    """What is not shown would be made again, or be held to be gone."""
    with pytest.raises(NetworkFault, match="shown"):
        seen(tmp_path, monkeypatch, *answers)


def test_what_is_on_a_link_or_known_by_it_goes_with_it() -> None:
    bridge, device = FoundLink("br", "bridge"), FoundLink("vx", "vxlan", master="br", port={"flood": True})
    behind, far = ForwardingEntry("vx", MAC), ForwardingEntry("vx", MAC, IPv4Address("192.0.2.2"))
    found = Found(
        {"br": bridge, "vx": device},
        (Address("br", IPv4Interface("10.1.0.1/16")),),
        (FoundRoute(IPv4Network("10.2.0.0/16"), "br"),),
        frozenset({Neighbour("br", IPv4Address("10.1.0.2"), MAC)}),
        frozenset({behind, far}),
        {("br", "forwarding"): 1},
    )
    assert found.without(()) == found
    assert found.without({"br"}) == Found({"vx": FoundLink("vx", "vxlan")}, forwarding=frozenset({far}))
