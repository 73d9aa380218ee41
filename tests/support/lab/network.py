"""The lab's network: a bridge in a namespace of its own, with a link to each node and one to the machine.

The machine itself gets one interface, on which the host listens; it goes with the bridge. Faults are made at
the node's end of its link, of what comes in and of what goes out, containers' traffic included. The kernel
may have no network emulation (netem), so packets are dropped here, and the rest is done by `relay`.
"""

import itertools
import os
import random
import subprocess
from enum import Enum

from support.machine.namespaces import Namespaces

NODE_LINK = "eth0"
_BRIDGE = "lab"
_BEFORE_NODES = 10


class Direction(Enum):
    """Which packets of a node a fault concerns."""

    BOTH = "both"
    TO_HOST = "to_host"
    FROM_HOST = "from_host"


_CHAIN = "LAB"
# First of all that comes in, last of all that goes out: nothing that an engine accepts gets past them.
_RULES = {
    Direction.FROM_HOST: ("raw", "PREROUTING", "--in-interface"),
    Direction.TO_HOST: ("mangle", "POSTROUTING", "--out-interface"),
}
# Only this table may refuse with an answer.
_REFUSING = ("filter", "INPUT", "--in-interface")


def free_subnet() -> str:
    """The first three numbers of a network to which the machine has no route."""
    routes = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=True).stdout
    for _ in itertools.repeat(None, 100):
        subnet = f"10.{random.randrange(240, 255)}.{random.randrange(256)}"
        if f"{subnet}." not in routes:
            return subnet
    raise RuntimeError("no subnet is free for a lab")


def interface_of(lab_id: str) -> str:
    """The machine's own interface of a lab; Linux allows 15 characters."""
    return f"krlab{lab_id}"


class LabNetwork:
    """`hub` holds the bridge. Nodes are attached in turn and get addresses in turn."""

    def __init__(self, lab_id: str, subnet: str, hub: Namespaces) -> None:
        self.subnet = subnet
        self._hub = hub
        interface = interface_of(lab_id)
        hub.run("ip", "link", "add", _BRIDGE, "type", "bridge")
        hub.run("ip", "link", "set", _BRIDGE, "up")
        peer = ["peer", "name", interface, "netns", str(os.getpid())]
        hub.run("ip", "link", "add", "host", "type", "veth", *peer)
        hub.run("ip", "link", "set", "host", "master", _BRIDGE, "up")
        _ip("addr", "add", f"{self.host_address}/24", "dev", interface)
        _ip("link", "set", interface, "up")

    @property
    def host_address(self) -> str:
        return f"{self.subnet}.1"

    def node_address(self, number: int) -> str:
        """Of the node with that number: 1, 2 and so on."""
        return f"{self.subnet}.{_BEFORE_NODES + number}"

    def attach(self, number: int, node: Namespaces) -> None:
        """Give that node its link and address."""
        port = f"port{number}"
        peer = ["peer", "name", NODE_LINK, "netns", str(node.pid)]
        self._hub.run("ip", "link", "add", port, "type", "veth", *peer)
        self._hub.run("ip", "link", "set", port, "master", _BRIDGE, "up")
        node.run("ip", "addr", "add", f"{self.node_address(number)}/24", "dev", NODE_LINK)
        node.run("ip", "link", "set", NODE_LINK, "up")
        for table, hook, option in (*_RULES.values(), _REFUSING):
            node.run("iptables", "-w", "-t", table, "-N", _CHAIN)
            node.run("iptables", "-w", "-t", table, "-I", hook, option, NODE_LINK, "-j", _CHAIN)


def drop(node: Namespaces, direction: Direction, percent: float = 100) -> None:
    """Drop that part of the packets of a node's link, beside what is dropped already."""
    dice = ["-m", "statistic", "--mode", "random", "--probability", str(percent / 100)]
    for way, (table, _, _) in _RULES.items():
        if direction in (way, Direction.BOTH):
            some = [] if percent >= 100 else dice
            node.run("iptables", "-w", "-t", table, "-A", _CHAIN, *some, "-j", "DROP")


def close_port(node: Namespaces, port: int, *, refuse: bool) -> None:
    """Let nothing come in for that TCP port of a node: dropped, or refused, as packet filters do either."""
    if refuse:
        answer = ["-j", "REJECT", "--reject-with", "tcp-reset"]
        node.run("iptables", "-w", "-A", _CHAIN, "-p", "tcp", "--dport", str(port), *answer)
    else:
        node.run("iptables", "-w", "-t", "raw", "-A", _CHAIN, "-p", "tcp", "--dport", str(port), "-j", "DROP")


def drop_nothing(node: Namespaces) -> None:
    """Take back all of `drop` and `close_port`."""
    for table, *_ in (*_RULES.values(), _REFUSING):
        node.run("iptables", "-w", "-t", table, "-F", _CHAIN)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, check=True)
