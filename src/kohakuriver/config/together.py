"""Checks across settings. Each takes values that passed their own checks; a faulty one is missing.

A check yields (setting at fault, what was expected of it beside the others).
"""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import Any

from kohakuriver.config.rules import writable_file_problem
from kohakuriver.models.network.overlay import MAX_VXLAN_ID, parse_overlay_subnet

Values = Mapping[str, Any]
Finding = tuple[str, str]


def runner_findings(values: Values) -> Iterator[Finding]:
    yield from _gateway_findings(values, "DOCKER_NETWORK_SUBNET", "DOCKER_NETWORK_GATEWAY")
    yield from _gateway_findings(values, "VM_BRIDGE_SUBNET", "VM_BRIDGE_GATEWAY")
    yield from _vxlan_findings(values)
    yield from _overlap_findings(values)
    if values.get("OVERLAY_ENABLED") and _same(values, "DOCKER_NETWORK_NAME", "OVERLAY_NETWORK_NAME"):
        yield "OVERLAY_NETWORK_NAME", "another name than DOCKER_NETWORK_NAME"


def host_findings(values: Values) -> Iterator[Finding]:
    yield from _vxlan_findings(values)
    if _same(values, "HOST_PORT", "HOST_SSH_PROXY_PORT"):
        yield "HOST_SSH_PROXY_PORT", "another port than HOST_PORT"
    if values.get("DB_URL") == "" and "DB_FILE" in values:
        problem = writable_file_problem(values["DB_FILE"])
        if problem is not None:
            yield "DB_FILE", f"str, the absolute path of a writable file ({problem})"


def host_remarks(values: Values) -> Iterator[str]:
    if values.get("AUTH_ENABLED") is False and not _is_loopback(values.get("HOST_BIND_IP")):
        yield (
            "AUTH_ENABLED is False and the host listens beyond this machine: "
            "whoever reaches it may run anything as anyone"
        )


def no_findings(_: Values) -> Iterator[Finding]:
    yield from ()


def no_remarks(_: Values) -> Iterator[str]:
    yield from ()


def _is_loopback(address: str | None) -> bool:
    return address is not None and ip_address(address).is_loopback


def _same(values: Values, one: str, other: str) -> bool:
    return one in values and other in values and values[one] == values[other]


def _gateway_findings(values: Values, subnet: str, gateway: str) -> Iterator[Finding]:
    if subnet not in values or gateway not in values:
        return
    network, address = IPv4Network(values[subnet]), IPv4Address(values[gateway])
    if address not in network or address in (network.network_address, network.broadcast_address):
        first, last = network.network_address + 1, network.broadcast_address - 1
        yield gateway, f"an address within {subnet} {network} ({first} to {last})"


def _vxlan_findings(values: Values) -> Iterator[Finding]:
    if "OVERLAY_SUBNET" not in values or "OVERLAY_VXLAN_ID" not in values:
        return
    plan = parse_overlay_subnet(values["OVERLAY_SUBNET"])
    highest = MAX_VXLAN_ID - plan.max_runner
    if values["OVERLAY_VXLAN_ID"] > highest:
        room = f"room for the {plan.max_runner} runners of OVERLAY_SUBNET"
        yield "OVERLAY_VXLAN_ID", f"int, from 1 to {highest}, with {room}"


def _overlap_findings(values: Values) -> Iterator[Finding]:
    """The Docker bridge is always there; the VM bridge is used where the overlay is not."""
    other = "OVERLAY_SUBNET" if values.get("OVERLAY_ENABLED") else "VM_BRIDGE_SUBNET"
    if "OVERLAY_ENABLED" not in values or "DOCKER_NETWORK_SUBNET" not in values or other not in values:
        return
    docker = IPv4Network(values["DOCKER_NETWORK_SUBNET"])
    second = (
        parse_overlay_subnet(values[other]).network
        if other == "OVERLAY_SUBNET"
        else IPv4Network(values[other])
    )
    if docker.overlaps(second):
        yield other, f"a network that does not overlap DOCKER_NETWORK_SUBNET {docker}"
