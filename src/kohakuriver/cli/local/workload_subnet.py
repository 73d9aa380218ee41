"""The network that workloads of this machine get when `up` writes the runner's configuration.

It is the default, unless a route of this machine or another network of its engine has these addresses: then
the first that is free. A network of the wanted name that is there already is used as it is; one that a
cluster made stays that cluster's, and ours gets another name.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kohakuriver.cli.local.engine import engine_networks
from kohakuriver.models.names import LABEL_CLUSTER
from kohakuriver.models.network.ipv4_routes import ROUTE_TABLE, Route, overlapping, parse_routes
from kohakuriver.models.network.overlay import parse_overlay_subnet

if TYPE_CHECKING:
    from kohakuriver.config import Program

_NAME, _SUBNET, _GATEWAY = "DOCKER_NETWORK_NAME", "DOCKER_NETWORK_SUBNET", "DOCKER_NETWORK_GATEWAY"


@dataclass(frozen=True, slots=True)
class ChosenNetwork:
    """`settings`: what to write other than the defaults; `notes`: why, as sentences."""

    settings: dict[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def choose_network(program: "Program[Any]") -> ChosenNetwork:
    """Choose for a runner with the default settings of `program`, on this machine as it is now."""
    routes = parse_routes(Path(ROUTE_TABLE).read_text())
    return chosen_network(
        {setting.name: setting.default for setting in program.settings}, routes, engine_networks()
    )


def chosen_network(
    defaults: dict[str, Any], routes: Iterable[Route], networks: Iterable[dict[str, Any]]
) -> ChosenNetwork:
    """The choice itself. `networks`: as the engine lists them."""
    rows = {str(row.get("Name")): row for row in networks}
    pools = {name: list(_pools(row)) for name, row in rows.items()}
    wanted = IPv4Network(defaults[_SUBNET])
    if LABEL_CLUSTER in (rows.get(defaults[_NAME], {}).get("Labels") or {}):
        return _of_its_own(defaults, pools, [*routes])
    if own := pools.pop(defaults[_NAME], None):
        subnet, gateway = own[0]
        if subnet == wanted or not gateway:
            return ChosenNetwork()
        return ChosenNetwork(
            {_SUBNET: str(subnet), _GATEWAY: gateway},
            (f"The Docker network {defaults[_NAME]} is there, with {subnet}",),
        )
    free, reason = _free(defaults, pools, routes)
    if free is None or free == wanted:
        return ChosenNetwork()
    return ChosenNetwork(_settings(free), (f"{reason}, so workloads get {free}",))


def _of_its_own(
    defaults: dict[str, Any], pools: dict[str, list[tuple[IPv4Network, str]]], routes: Iterable[Route]
) -> ChosenNetwork:
    """Beside the network that another cluster made under the default name."""
    name = next(each for n in count(2) if (each := f"{defaults[_NAME]}-{n}") not in pools)
    subnet, _ = _free(defaults, pools, routes)
    settings: dict[str, object] = {_NAME: name}
    if subnet is not None:
        settings |= _settings(subnet)
    note = f"The Docker network {defaults[_NAME]} is another cluster's, so workloads get {name} ({subnet})"
    return ChosenNetwork(settings, (note,))


def _settings(subnet: IPv4Network) -> dict[str, object]:
    return {_SUBNET: str(subnet), _GATEWAY: str(subnet.network_address + 1)}


def _free(
    defaults: dict[str, Any], pools: dict[str, list[tuple[IPv4Network, str]]], routes: Iterable[Route]
) -> tuple[IPv4Network | None, str]:
    """The default where it is free, else the first that is, and why; None: nothing is free."""
    taken = [
        *routes,
        *(Route(f"Docker network {name}", subnet) for name in pools for subnet, _ in pools[name]),
    ]
    wanted = IPv4Network(defaults[_SUBNET])
    in_the_way = overlapping(taken, wanted)
    if in_the_way is None:
        return wanted, ""
    reason = f"{wanted} is taken here ({in_the_way.interface} has {in_the_way.network})"
    reserved = [parse_overlay_subnet(defaults["OVERLAY_SUBNET"]).network]
    reserved.append(IPv4Network(defaults["VM_BRIDGE_SUBNET"]))
    for subnet in _candidates():
        if overlapping(taken, subnet) is None and not any(each.overlaps(subnet) for each in reserved):
            return subnet, reason
    return None, reason


def _pools(row: dict[str, Any]) -> Iterator[tuple[IPv4Network, str]]:
    """Subnet and gateway of a network's IPv4 pools."""
    for pool in (row.get("IPAM") or {}).get("Config") or ():
        subnet = pool.get("Subnet") or ""
        if subnet and ":" not in subnet:
            yield IPv4Network(subnet, strict=False), (pool.get("Gateway") or "").partition("/")[0]


def _candidates() -> Iterator[IPv4Network]:
    """Private networks, beginning with those that others use least."""
    for second in (31, *range(29, 15, -1)):
        yield IPv4Network(f"172.{second}.0.0/16")
    for second in range(255, -1, -1):
        yield IPv4Network(f"10.{second}.0.0/16")
    for third in range(255, -1, -1):
        yield IPv4Network(f"192.168.{third}.0/24")
