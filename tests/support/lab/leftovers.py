"""What a node still has although no task lives there: containers, networks, folders, interfaces, cgroups.

Sandboxes that wait for work are no leftovers, as long as there are no more of them than the runner keeps.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from kohakuriver.models.names import LABEL_SANDBOX
from support.lab.node import NETWORK, SANDBOXES_KEPT, LabNode
from support.machine.processes import cgroups_named, processes_in

_ENGINE_NETWORKS = frozenset({"bridge", "host", "none", NETWORK})
_LASTING_INTERFACES = ("lo", "eth0", "docker0", "br-")


def leftovers_on(node: LabNode) -> list[str]:
    """Return a line for each."""
    containers = _containers(node)
    sandboxes = [one for one in containers if one["sandbox"]]
    found = [f"container {one['name']} ({one['state']})" for one in containers if not one["sandbox"]]
    if len(sandboxes) > SANDBOXES_KEPT:
        found.append(f"{len(sandboxes)} sandboxes, where {SANDBOXES_KEPT} are kept")
    found += [f"sandbox {one['name']} is {one['state']}" for one in sandboxes if one["state"] != "running"]
    found += [f"network {name}" for name in _networks(node) if name not in _ENGINE_NETWORKS]
    found += _interfaces(node, len(sandboxes))
    found += _folders(node)
    found += _cgroups(node, {one["id"] for one in containers})
    return found


def _containers(node: LabNode) -> list[dict[str, str]]:
    """One call: between two of them a container could go."""
    listed = node.docker.run("ps", "--all", "--no-trunc", "--format", "{{json .}}").splitlines()
    return [
        {
            "id": each["ID"],
            "name": each["Names"],
            "state": each["State"],
            "sandbox": "yes" if f"{LABEL_SANDBOX}=true" in each["Labels"].split(",") else "",
        }
        for each in map(json.loads, listed)
    ]


def _networks(node: LabNode) -> list[str]:
    return node.docker.run("network", "ls", "--format", "{{.Name}}").split()


def _interfaces(node: LabNode, sandboxes: int) -> Iterator[str]:
    """Each sandbox has one end of a pair here; what else is neither the engine's nor the lab's is left."""
    listed = json.loads(node.namespaces.run("ip", "-json", "link").stdout)
    others = [link["ifname"] for link in listed if not link["ifname"].startswith(_LASTING_INTERFACES)]
    pairs = [name for name in others if name.startswith("veth")]
    if len(pairs) > sandboxes:
        yield f"{len(pairs)} ends of pairs for {sandboxes} sandboxes: {', '.join(pairs)}"
    yield from (f"interface {name}" for name in others if not name.startswith("veth"))


def _folders(node: LabNode) -> Iterator[str]:
    yield from (f"folder {path}" for path in sorted((node.state_dir / "net").glob("*")))


def _cgroups(node: LabNode, containers: set[str]) -> Iterator[str]:
    """Those of no container in which something runs. An engine that is ended while it starts a container may
    forget the empty cgroup, which is the engine's own and holds nothing.
    """
    left: set[Path] = set()
    for parent in cgroups_named(node.docker.place.name):
        left.update(child for child in parent.iterdir() if child.is_dir() and child.name not in containers)
    yield from (f"cgroup {path} with processes" for path in sorted(left) if processes_in([path]))
