"""The bridge network that sandboxes are on: what to do about it (`plan`, pure) and doing it.

A network of our cluster may be remade while nothing is connected to it; one that somebody else made is used
when it has the wanted subnet and gateway, and never changed.
"""

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import structlog

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import Conflict, EngineFault, InvalidInput, NotFound
from kohakuriver.models.names import LABEL_CLUSTER, LABEL_MANAGED, LABEL_NODE
from kohakuriver.models.network.ipv4_routes import ROUTE_TABLE, Route, overlapping, parse_routes

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WantedNetwork:
    """`node` and its cluster stand on the network as labels, so that its runner knows its own again.

    `clusters`: ids that the cluster has and had, the present one first.
    """

    name: str
    subnet: str
    gateway: str
    node: str = ""
    clusters: tuple[str, ...] = ()

    @property
    def labels(self) -> dict[str, str]:
        labels = {LABEL_MANAGED: "true", LABEL_NODE: self.node}
        return labels | {LABEL_CLUSTER: self.clusters[0]} if self.clusters else labels

    def is_of_cluster(self, labels: dict[str, str]) -> bool:
        """Whether a network with these labels is our cluster's; one of an earlier version names none."""
        return labels.get(LABEL_MANAGED) == "true" and labels.get(LABEL_CLUSTER, "") in ("", *self.clusters)


@dataclass(frozen=True, slots=True)
class FoundNetwork:
    """A network as the engine shows it. `bridge`: name of its interface on the node."""

    id: str
    subnet: str
    gateway: str
    is_ours: bool
    is_empty: bool
    bridge: str
    is_of_another_cluster: bool = False


class Step(Enum):
    KEEP = "keep"
    CREATE = "create"
    REMAKE = "remake"


def plan(wanted: WantedNetwork, found: FoundNetwork | None, routes: Iterable[Route]) -> Step:
    """Raises InvalidInput that says what to change where the wanted network cannot be."""
    step = _step(wanted, found)
    subnet = ipaddress.IPv4Network(wanted.subnet)
    own = found.bridge if found is not None else None
    route = overlapping(routes, subnet, own)
    if route is not None:
        raise InvalidInput(
            f"DOCKER_NETWORK_SUBNET {wanted.subnet} overlaps the route {route.network} of this node "
            f"(interface {route.interface}); choose a subnet that no route covers",
            field="DOCKER_NETWORK_SUBNET",
        )
    return step


def _step(wanted: WantedNetwork, found: FoundNetwork | None) -> Step:
    if found is None:
        return Step.CREATE
    if found.is_of_another_cluster:
        return _taken_over(wanted, found)
    if (found.subnet, found.gateway) == (wanted.subnet, wanted.gateway):
        return Step.KEEP
    difference = (
        f"the Docker network {wanted.name!r} exists with subnet {found.subnet or 'none'} and gateway "
        f"{found.gateway or 'none'}, not {wanted.subnet} and {wanted.gateway}"
    )
    if not found.is_ours:
        raise InvalidInput(
            f"{difference}, and this system did not make it; remove it (docker network rm {wanted.name}), "
            "or choose another DOCKER_NETWORK_NAME or its subnet",
            field="DOCKER_NETWORK_NAME",
        )
    if not found.is_empty:
        raise InvalidInput(
            f"{difference}, and containers still use it; let them end or remove them, then start the runner "
            "again, or choose another DOCKER_NETWORK_NAME",
            field="DOCKER_NETWORK_SUBNET",
        )
    return Step.REMAKE


def _taken_over(wanted: WantedNetwork, found: FoundNetwork) -> Step:
    """One that was left behind is made anew; on one in use two runners would undo each other's filters."""
    if found.is_empty:
        return Step.REMAKE
    raise InvalidInput(
        f"the Docker network {wanted.name!r} was made by a runner of another cluster, and containers use it; "
        "choose another DOCKER_NETWORK_NAME with a DOCKER_NETWORK_SUBNET of its own, or end what that "
        "cluster runs here",
        field="DOCKER_NETWORK_NAME",
    )


async def ensure_network(
    api: DockerApi, wanted: WantedNetwork, disconnect_idle: Callable[[], Awaitable[None]]
) -> str:
    """Bring the network to what is wanted; return the name of its bridge. `disconnect_idle` removes our own
    idle containers from one that is in the way; it is called only then."""
    found = await _find(api, wanted)
    if found is not None and found.is_ours and not found.is_empty and found.subnet != wanted.subnet:
        await disconnect_idle()
        found = await _find(api, wanted)
    step = plan(wanted, found, parse_routes(await asyncio.to_thread(Path(ROUTE_TABLE).read_text)))
    if step is Step.REMAKE and found is not None:
        await api.json("DELETE", f"networks/{found.id}")
    if step is not Step.KEEP or found is None:
        found = await _create(api, wanted)
    return found.bridge


async def remove_old_networks(api: DockerApi, wanted: WantedNetwork) -> None:
    """Remove the networks that this node made under another DOCKER_NETWORK_NAME, once nothing uses them."""
    labels = [f"{LABEL_MANAGED}=true", f"{LABEL_NODE}={wanted.node}"]
    rows = await api.json("GET", "networks", params={"filters": json.dumps({"label": labels})})
    for row in rows:
        if row["Name"] == wanted.name or not wanted.is_of_cluster(row["Labels"]):
            continue
        try:
            await api.json("DELETE", f"networks/{row['Id']}")
        except (NotFound, Conflict, EngineFault) as error:
            _log.info("old_network_kept", network=row["Name"], reason=str(error))
        else:
            _log.info("old_network_removed", network=row["Name"])


async def _find(api: DockerApi, wanted: WantedNetwork) -> FoundNetwork | None:
    filters = json.dumps({"name": [wanted.name]})  # matches parts of names too
    rows = await api.json("GET", "networks", params={"filters": filters})
    exact = next((row for row in rows if row["Name"] == wanted.name), None)
    if exact is None:
        return None
    return read_found(await api.json("GET", f"networks/{exact['Id']}"), wanted)


def read_found(facts: dict[str, Any], wanted: WantedNetwork) -> FoundNetwork:
    labels = facts.get("Labels") or {}
    pools = (facts["IPAM"].get("Config") or []) if facts.get("IPAM") else []
    pool: dict[str, str] = next((pool for pool in pools if ":" not in pool.get("Subnet", "")), {})
    return FoundNetwork(
        id=facts["Id"],
        subnet=pool.get("Subnet", ""),
        gateway=pool.get("Gateway", "").partition("/")[0],
        is_ours=wanted.is_of_cluster(labels),
        is_of_another_cluster=labels.get(LABEL_MANAGED) == "true" and not wanted.is_of_cluster(labels),
        is_empty=not facts.get("Containers"),
        bridge=(facts.get("Options") or {}).get("com.docker.network.bridge.name") or f"br-{facts['Id'][:12]}",
    )


async def _create(api: DockerApi, wanted: WantedNetwork) -> FoundNetwork:
    body = {
        "Name": wanted.name,
        "Driver": "bridge",
        "CheckDuplicate": True,
        "Labels": wanted.labels,
        "IPAM": {"Driver": "default", "Config": [{"Subnet": wanted.subnet, "Gateway": wanted.gateway}]},
    }
    try:
        made = await api.json("POST", "networks/create", json=body)
        return read_found(await api.json("GET", f"networks/{made['Id']}"), wanted)
    except Conflict:
        found = await _find(api, wanted)  # another runner on this engine was quicker
        if found is None or _step(wanted, found) is not Step.KEEP:
            raise
        return found
    except EngineFault as error:
        if "overlaps" in str(error):
            raise InvalidInput(
                f"DOCKER_NETWORK_SUBNET {wanted.subnet} overlaps another network of the engine ({error}); "
                "choose a free one",
                field="DOCKER_NETWORK_SUBNET",
            ) from error
        raise
