"""A kernel's links, addresses and routes as values: what commands of a plan make of what there is."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from kohakuriver.network.found import Found, FoundLink, FoundRoute
from kohakuriver.network.plan import Plan
from kohakuriver.network.wanted import Address, ForwardingEntry, Neighbour


def carried_out(found: Found, made: Plan) -> Found:
    """What there is once the plan is carried out; a command about what is not there breaks the test."""
    for command in made.links:
        topic, verb, *words = command.line.split()
        found = _COMMANDS[topic, verb](found, words)
    for one in made.settings:
        assert one.link in found.links
        found = replace(found, settings={**found.settings, (one.link, one.name): one.value})
    for command in made.forwarding:
        _, verb, *words = command.line.split()
        found = _entry(found, verb, words)
    return found


def _options(words: list[str]) -> dict[str, str]:
    return dict(zip(words[::2], words[1::2], strict=False))


def _link_del(found: Found, words: list[str]) -> Found:
    assert words[1] in found.links
    return found.without({words[1]})


def _link_add(found: Found, words: list[str]) -> Found:
    options = _options(words)
    assert options["name"] not in found.links
    data: dict[str, Any] = {"stp_state": 0, "no_linklocal_learn": 1}
    if options["type"] == "vxlan":
        data = {"id": int(options["id"]), "port": int(options["dstport"]), "local": options["local"]}
        data["learning"] = words[-1] != "nolearning"
    return _with_link(found, FoundLink(options["name"], options["type"], options["address"], 1500, data=data))


def _link_set(found: Found, words: list[str]) -> Found:
    _, name, option, *values = words
    link = found.links[name]
    if option == "up":
        return _with_link(found, replace(link, is_up=True))
    if option in ("master", "nomaster"):
        master = values[0] if values else ""
        assert not master or found.links[master].kind == "bridge"
        entries = frozenset(one for one in found.forwarding if one.link != name or one.destination)
        return replace(_with_link(found, replace(link, master=master, port={})), forwarding=entries)
    if option == "type" and values[0] == "bridge":
        return _with_link(found, replace(link, data={**link.data, values[1]: int(values[2])}))
    if option == "type":
        assert link.master
        given = {key: value == "on" for key, value in _options(values[1:]).items()}
        return _with_link(found, replace(link, port={**link.port, **given}))
    if option == "mtu":
        return _with_link(found, replace(link, mtu=int(values[0])))
    assert option == "address"
    return _with_link(found, replace(link, mac=values[0]))


def _with_link(found: Found, link: FoundLink) -> Found:
    return replace(found, links={**found.links, link.name: link})


def _addr_del(found: Found, words: list[str]) -> Found:
    """With the first of a network go the others; with the last of a link its neighbours and routes."""
    gone = Address(words[2], IPv4Interface(words[0]))
    assert gone in found.addresses
    same = [one for one in found.addresses if _net(one) == _net(gone)]
    lost = same if same[0] == gone else [gone]
    left = replace(found, addresses=tuple(one for one in found.addresses if one not in lost))
    sources = {one.interface.ip for one in lost}
    left = replace(left, routes=tuple(one for one in left.routes if one.source not in sources))
    if any(one.link == gone.link for one in left.addresses):
        return left
    return replace(
        left,
        routes=tuple(one for one in left.routes if one.link != gone.link),
        neighbours=frozenset(one for one in left.neighbours if one.link != gone.link),
    )


def _net(address: Address) -> tuple[str, IPv4Network]:
    return address.link, address.interface.network


def _addr_replace(found: Found, words: list[str]) -> Found:
    made = Address(words[2], IPv4Interface(words[0]))
    assert made.link in found.links
    return replace(found, addresses=tuple(dict.fromkeys((*found.addresses, made))))


def _neigh_del(found: Found, words: list[str]) -> Found:
    left = frozenset(one for one in found.neighbours if (str(one.address), one.link) != (words[0], words[2]))
    assert left != found.neighbours
    return replace(found, neighbours=left)


def _neigh_replace(found: Found, words: list[str]) -> Found:
    made = Neighbour(words[4], IPv4Address(words[0]), words[2])
    assert made.link in found.links
    kept = (one for one in found.neighbours if (one.address, one.link) != (made.address, made.link))
    return replace(found, neighbours=frozenset({*kept, made}))


def _route(words: list[str]) -> FoundRoute:
    options = _options([word for word in words[1:] if word != "onlink"])
    return FoundRoute(
        IPv4Network(words[0]),
        options.get("dev", ""),
        IPv4Address(options["via"]) if "via" in options else None,
        IPv4Address(options["src"]) if "src" in options else None,
        int(options["metric"]),
        int(options["proto"]),
    )


def _route_del(found: Found, words: list[str]) -> Found:
    """Without the source, which is not named."""
    gone = _route(words)
    matching = [one for one in found.routes if replace(one, source=None, mtu=0) == gone]
    assert matching
    left = list(found.routes)
    left.remove(matching[0])
    return replace(found, routes=tuple(left))


def _route_replace(found: Found, words: list[str]) -> Found:
    made = _route(words)
    assert made.link in found.links
    same = [one for one in found.routes if (one.network, one.metric) == (made.network, made.metric)]
    assert all(one.protocol == made.protocol for one in same), "a route of others is replaced"
    return replace(found, routes=(*(one for one in found.routes if one not in same[:1]), made))


def _entry(found: Found, verb: str, words: list[str]) -> Found:
    mac, _, link, *behind = words
    made = ForwardingEntry(link, mac, IPv4Address(behind[1]) if behind[0] == "dst" else None)
    assert link in found.links
    if verb == "del":
        assert made in found.forwarding
        return replace(found, forwarding=found.forwarding - {made})
    assert made.destination or found.links[link].master
    left = found.forwarding
    if verb == "replace":
        left = frozenset(
            one
            for one in left
            if (one.link, one.mac, one.destination is None) != (link, mac, made.destination is None)
        )
    return replace(found, forwarding=left | {made})


_COMMANDS: dict[tuple[str, str], Callable[[Found, list[str]], Found]] = {
    ("link", "del"): _link_del,
    ("link", "add"): _link_add,
    ("link", "set"): _link_set,
    ("addr", "del"): _addr_del,
    ("addr", "replace"): _addr_replace,
    ("neigh", "del"): _neigh_del,
    ("neigh", "replace"): _neigh_replace,
    ("route", "del"): _route_del,
    ("route", "replace"): _route_replace,
}
