"""Links, addresses and routes in the kernel itself: made, as wanted, broken, mended, taken away.

Two machines (namespaces) with a cable between them. Each has a bridge with a workload on it and a VXLAN
device to the other, without learning, as two runners have.
"""

import asyncio
import errno
import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from kohakuriver.network.ensure import ensure, take_away
from kohakuriver.network.found import look
from kohakuriver.network.plan import Plan, plan
from kohakuriver.network.programs import NetworkFault
from kohakuriver.network.wanted import (
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
from support.machine.namespaces import Namespaces

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

BRIDGE, DEVICE = "kohaku-overlay", "kohaku-vx"
MARKS = Marks(("kohaku-",), 201)
MTU = 1450
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2  # of ip(7); Python names none


def answers(address: str, size: int) -> bool:
    """Send echo requests, for as long as the kernels need to learn who is who."""
    body = bytes(size)
    request = struct.pack("!BBHHH", 8, 0, 0xF7FF, 0, 0) + body  # the sum of all else is 0x0800
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as echo:
        echo.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        echo.settimeout(1)
        for _ in range(10):
            try:
                echo.sendto(request, (address, 0))
                while (packet := echo.recv(1 << 16))[20] != 0:
                    pass  # a request of somebody else's, or news of an error
            except TimeoutError:
                continue
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    return False
                raise
            return packet[28:] == body
    return False


@dataclass
class Machine:
    """`number` is that of a runner; its workload is a namespace behind the link `veth-w`."""

    number: int
    space: Namespaces
    workload: Namespaces

    @property
    def cable(self) -> str:
        return f"192.0.2.{self.number}"

    @property
    def network(self) -> IPv4Network:
        return IPv4Network((f"10.128.{self.number * 64}.0", 18))

    @property
    def gateway(self) -> IPv4Address:
        return self.network[1]

    @property
    def guest(self) -> str:
        return str(self.network[9])

    @property
    def mac(self) -> str:
        return f"02:4b:00:00:00:0{self.number}"

    def wanted(self, other: "Machine") -> Wanted:
        port = BridgePort(BRIDGE, answers=True, isolated=True)
        device_mac = f"02:4b:00:00:01:0{self.number}"
        return Wanted(
            MARKS,
            links=(
                Vxlan(DEVICE, device_mac, MTU, 100, 4789, IPv4Address(self.cable), port),
                Bridge(BRIDGE, self.mac, MTU),
            ),
            attachments=(Attachment("veth-w", BRIDGE), Attachment("veth-none", BRIDGE)),
            addresses=(Address(BRIDGE, IPv4Interface((self.gateway, 18))),),
            routes=(Route(other.network, other.gateway, BRIDGE, self.gateway),),
            neighbours=(Neighbour(BRIDGE, other.gateway, other.mac),),
            forwarding=(
                ForwardingEntry(DEVICE, other.mac),
                ForwardingEntry(DEVICE, other.mac, IPv4Address(other.cable)),
            ),
            settings=(
                Setting(BRIDGE, "send_redirects", 0),
                Setting(BRIDGE, "rp_filter", 2),
                Setting(BRIDGE, "forwarding", 1),
            ),
        )

    def do(self, *words: str) -> str:
        return self.space.run(*words).stdout

    def ensure(self, wanted: Wanted) -> list[str]:
        return self.space.call(lambda: asyncio.run(ensure(wanted))).subjects

    def what_is_left_to_do(self, wanted: Wanted) -> Plan:
        async def asked() -> Plan:
            return plan(await look(wanted.settings), wanted)

        return self.space.call(lambda: asyncio.run(asked()))

    def pings(self, other: "Machine", size: int = MTU - 28) -> bool:
        """Whether an answer comes from workload to workload, to a packet that may not be cut."""
        return self.workload.call(partial(answers, other.guest, size))


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[Machine, Machine]]:
    spaces = [Namespaces.make(name) for name in ("one", "other", "guest1", "guest2")]
    try:
        one, other = Machine(1, spaces[0], spaces[2]), Machine(2, spaces[1], spaces[3])
        end = ("peer", "name", "cable", "netns", str(other.space.pid))
        one.do("ip", "link", "add", "cable", "type", "veth", *end)
        for machine in (one, other):
            machine.do("ip", "link", "set", "cable", "mtu", "1500", "up")
            machine.do("ip", "addr", "add", f"{machine.cable}/24", "dev", "cable")
            add_workload(machine)
        yield one, other
    finally:
        for space in spaces:
            space.end()


def add_workload(machine: Machine) -> None:
    pid = str(machine.workload.pid)
    machine.do("ip", "link", "add", "veth-w", "type", "veth", "peer", "name", "eth0", "netns", pid)
    machine.do("ip", "link", "set", "veth-w", "up")
    machine.workload.run("ip", "link", "set", "eth0", "mtu", str(MTU), "up")
    machine.workload.run("ip", "addr", "add", f"{machine.guest}/18", "dev", "eth0")
    machine.workload.run("ip", "route", "add", "default", "via", str(machine.gateway))


@pytest.fixture
def joined(machines: tuple[Machine, Machine]) -> tuple[Machine, Machine]:
    """Sees to it that there is nothing to do once all is done."""
    one, other = machines
    for machine, peer in ((one, other), (other, one)):
        machine.ensure(machine.wanted(peer))
        assert not machine.what_is_left_to_do(machine.wanted(peer))
    return one, other


def test_two_machines_reach_each_other_without_learning_and_with_whole_packets(
    joined: tuple[Machine, Machine],
) -> None:
    one, other = joined
    assert other.pings(one)
    assert not one.pings(other, MTU - 27)
    assert one.guest not in other.do("bridge", "fdb", "show"), "no MAC of a workload is known elsewhere"


BREAKS: dict[str, tuple[str, ...]] = {
    "the bridge is deleted": ("ip link del kohaku-overlay",),
    "the device is deleted": ("ip link del kohaku-vx",),
    "all is deleted": ("ip link del kohaku-vx", "ip link del kohaku-overlay"),
    "the bridge is down": ("ip link set kohaku-overlay down",),
    "the MAC of the bridge": ("ip link set kohaku-overlay address 02:00:00:00:00:99",),
    "the MAC of the device": ("ip link set kohaku-vx address 02:00:00:00:00:99",),
    "the MTU": ("ip link set kohaku-vx mtu 1300",),
    "spanning tree": ("ip link set kohaku-overlay type bridge stp_state 1 no_linklocal_learn 0",),
    "learning": ("ip link set kohaku-vx type bridge_slave learning on flood on neigh_suppress off",),
    "the device leaves the bridge": ("ip link set kohaku-vx nomaster",),
    "the workload leaves the bridge": ("ip link set veth-w nomaster",),
    "another VXLAN id": (
        "ip link del kohaku-vx",
        "ip link add kohaku-vx type vxlan id 7 dstport 4789 local 192.0.2.1",
    ),
    "another kind of link": (
        "ip link del kohaku-overlay",
        "ip link add kohaku-overlay type veth peer name veth-x",
    ),
    "the address": ("ip addr flush dev kohaku-overlay",),
    "other addresses before it": (
        "ip addr flush dev kohaku-overlay",
        "ip addr add 10.128.64.7/18 dev kohaku-overlay",
        "ip addr add 10.128.64.8/18 dev kohaku-overlay",
        "ip addr add 10.128.64.1/18 dev kohaku-overlay",
        "ip neigh add 10.128.128.1 lladdr 02:4b:00:00:00:02 dev kohaku-overlay nud permanent",
        "ip route add 10.128.128.0/18 via 10.128.128.1 dev kohaku-overlay onlink proto 201 src 10.128.64.1",
    ),
    "the route": ("ip route del 10.128.128.0/18",),
    "another gateway": ("ip route replace 10.128.128.0/18 via 10.128.64.9 dev kohaku-overlay proto 201",),
    "the neighbour": ("ip neigh del 10.128.128.1 dev kohaku-overlay",),
    "another neighbour": (
        "ip neigh replace 10.128.128.1 lladdr 02:00:00:00:00:99 dev kohaku-overlay nud permanent",
    ),
    "the entry of the device": ("bridge fdb del 02:4b:00:00:00:02 dev kohaku-vx dst 192.0.2.2 self",),
    "another machine": ("bridge fdb replace 02:4b:00:00:00:02 dev kohaku-vx dst 192.0.2.9 self permanent",),
    "the entry of the bridge": ("bridge fdb del 02:4b:00:00:00:02 dev kohaku-vx master",),
    "a setting": ("sysctl -q -w net.ipv4.conf.kohaku-overlay.send_redirects=1",),
}


@pytest.mark.parametrize("commands", BREAKS.values(), ids=BREAKS)
def test_what_somebody_breaks_is_seen_and_mended(
    joined: tuple[Machine, Machine], commands: tuple[str, ...]
) -> None:
    one, other = joined
    wanted = one.wanted(other)
    for command in commands:
        one.do(*command.split())
    assert one.ensure(wanted), "it is seen"
    left = one.what_is_left_to_do(wanted)
    assert not left, left
    assert one.pings(other)
    assert other.pings(one)
    bridge = json.loads(one.do("ip", "-j", "link", "show", BRIDGE))[0]
    assert bridge["address"] == one.mac


def state_of(machine: Machine) -> list[str]:
    """What there is, without numbers of links and what moves by itself."""
    links = json.loads(machine.do("ip", "-j", "addr", "show"))
    shown = [
        (link["ifname"], link["address"], link["mtu"], link.get("master"), address["local"])
        for link in links
        for address in link["addr_info"]
        if address["family"] == "inet" or link["ifname"] != BRIDGE
    ]
    masters = [(link["ifname"], link.get("master")) for link in links]
    questions = ("ip route", "ip neigh show nud permanent", "bridge fdb show br br-other", "ip rule")
    return [*map(str, shown), *map(str, masters), *(machine.do(*words.split()) for words in questions)]


OF_OTHERS = (
    "ip link add br-other type bridge",
    "ip link add other-vx type vxlan id 9 dstport 4790 local 192.0.2.1 nolearning",
    "ip link set other-vx master br-other",
    "ip link set other-vx up",
    "ip link set br-other up",
    "ip addr add 10.9.0.1/24 dev br-other",
    "ip route add 10.99.0.0/16 via 192.0.2.77",
    "ip route add blackhole 10.98.0.0/16",
    "ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:11 dev br-other nud permanent",
    "bridge fdb add 02:00:00:00:00:11 dev other-vx dst 192.0.2.2 self permanent",
    "bridge fdb add 02:00:00:00:00:11 dev other-vx master static",
)


def test_all_of_ours_is_taken_away_and_nothing_else(machines: tuple[Machine, Machine]) -> None:
    one, other = machines
    one.space.call(lambda: asyncio.run(take_away(MARKS)))
    for command in OF_OTHERS:
        one.do(*command.split())
    before = state_of(one)
    assert "kohaku" not in "".join(before)
    wanted = one.wanted(other)
    assert one.ensure(wanted)
    assert state_of(one) != before
    assert one.space.call(lambda: asyncio.run(take_away(MARKS)))
    assert state_of(one) == before
    assert not one.space.call(lambda: asyncio.run(take_away(MARKS))), "nothing is left to do"
    for command in ("ip link del other-vx", "ip link del br-other", "ip route del 10.99.0.0/16"):
        one.do(*command.split())


def test_the_hosts_addresses_are_on_the_bridge_of_a_runner_of_its_machine(
    joined: tuple[Machine, Machine],
) -> None:
    """Host and runner each make and take away their own, and leave the other's as they are."""
    one, other = joined
    addresses = [IPv4Interface("10.128.0.1/32"), IPv4Interface("10.128.64.254/18")]
    ips = frozenset(address.ip for address in addresses)
    host = Wanted(
        Marks(("kohaku-host-",), 202, elsewhere=ips),
        addresses=tuple(Address(BRIDGE, address) for address in addresses),
    )
    runner = one.wanted(other)
    runner = replace(runner, marks=replace(runner.marks, links=(BRIDGE, DEVICE), guests=ips))
    assert len(one.ensure(host)) == 2
    assert not one.ensure(runner)
    assert not one.ensure(host)
    assert one.space.call(lambda: asyncio.run(take_away(host.marks)))
    assert not one.ensure(runner)
    assert "10.128.64.254" not in one.do("ip", "addr")


def test_a_port_is_not_taken_from_another_bridge(joined: tuple[Machine, Machine]) -> None:
    one, other = joined
    for command in ("ip link add br-other type bridge", "ip link set veth-w master br-other"):
        one.do(*command.split())
    assert not one.ensure(one.wanted(other))
    one.do("ip", "link", "del", "br-other")
    assert one.ensure(one.wanted(other))
    assert one.pings(other)


def test_a_route_of_others_is_not_replaced_but_named(joined: tuple[Machine, Machine]) -> None:
    one, other = joined
    one.do("ip", "route", "del", str(other.network))
    one.do("ip", "route", "add", str(other.network), "via", "192.0.2.77")
    with pytest.raises(NetworkFault, match=rf"{other.network} of this machine \(interface cable\)"):
        one.ensure(one.wanted(other))
    one.do("ip", "route", "del", str(other.network))


def test_what_the_kernel_refuses_is_named_and_the_rest_is_done(joined: tuple[Machine, Machine]) -> None:
    one, other = joined
    wanted = one.wanted(other)
    one.do("ip", "link", "del", DEVICE)
    add = "ip link add elsewhere type vxlan id 100 dstport 4789 nolearning"
    one.do(*add.split())
    with pytest.raises(NetworkFault, match=r"VXLAN device kohaku-vx \(id 100, port 4789\).*already exists"):
        one.ensure(replace(wanted, settings=(*wanted.settings, Setting(BRIDGE, "log_martians", 1))))
    assert one.do("cat", f"/proc/sys/net/ipv4/conf/{BRIDGE}/log_martians") == "1\n"
    one.do("ip", "link", "del", "elsewhere")
    with pytest.raises(NetworkFault, match="setting no_such_setting of kohaku-overlay cannot be set to 7"):
        one.ensure(replace(wanted, settings=(Setting(BRIDGE, "no_such_setting", 7),)))
    assert not one.ensure(wanted)
