"""Filters in the kernel itself: tables of ours, and rules in the engine's chain by both kinds of iptables."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from kohakuriver.network.engine_chain import Accepted, ensure_accepted
from kohakuriver.network.filter_tables import FilterSet, FilterTable, FilterTables
from kohakuriver.network.programs import NetworkFault
from support.machine.namespaces import Namespaces

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


@pytest.fixture
def machine() -> Iterator[Namespaces]:
    made = Namespaces.make("filtered")
    yield made
    made.end()


PEERS = FilterSet("peers", "ipv4_addr", frozenset({"192.0.2.2"}))
SPEAKERS = FilterSet(
    "speakers", "ifname . ether_addr . ipv4_addr", frozenset({"veth-w . 02:00:00:00:00:05 . 10.1.2.3"})
)
INTO_NODE = """\
  counter foreign {
  }
  chain into_node {
    type filter hook input priority -10; policy accept;
    udp dport 4789 ip saddr != @peers counter name foreign drop
    ip saddr 198.51.100.1 counter drop
  }
"""
TABLES = (
    FilterTable("inet", "kohaku-overlay", INTO_NODE, (PEERS,)),
    FilterTable("bridge", "kohaku-overlay", "  chain c {\n  }\n", (SPEAKERS,)),
)


def in_kernel(machine: Namespaces, steps: Callable[[FilterTables], Awaitable[None]]) -> None:
    async def on_machine() -> None:
        await steps(FilterTables("kohaku-"))

    machine.call(lambda: asyncio.run(on_machine()))


def listed(machine: Namespaces) -> str:
    return machine.run("nft", "list", "ruleset").stdout


def test_filters_are_kept_whatever_somebody_does_to_them(machine: Namespaces) -> None:
    machine.run("nft", "add", "table", "inet", "of-others")

    async def steps(tables: FilterTables) -> None:
        both = ["bridge kohaku-overlay", "inet kohaku-overlay"]
        assert await tables.ensure(TABLES) == both
        whole = listed(machine)
        assert await tables.ensure(TABLES) == []
        for command in (
            "flush table inet kohaku-overlay",
            "delete table inet kohaku-overlay",
            "add rule inet kohaku-overlay into_node accept",
            "delete element inet kohaku-overlay peers { 192.0.2.2 }",
            "add element inet kohaku-overlay peers { 198.51.100.7 }",
        ):
            machine.run("nft", command)
            assert await tables.ensure(TABLES) == ["inet kohaku-overlay"], command
            assert listed(machine) == whole
        machine.run("nft", "flush", "ruleset")
        assert await tables.ensure(TABLES) == both
        machine.run("nft", "add", "table", "inet", "of-others")
        machine.run("nft", "add", "table", "inet", "kohaku-old")
        assert await tables.ensure(TABLES[:1]) == ["bridge kohaku-overlay", "inet kohaku-old"]
        assert await tables.take_away() == ["inet kohaku-overlay"]
        assert listed(machine).split() == ["table", "inet", "of-others", "{", "}"]

    in_kernel(machine, steps)


def test_elements_change_while_counts_go_on(machine: Namespaces) -> None:
    more = replace(PEERS, elements=frozenset({"192.0.2.2", "192.0.2.3"}))

    async def steps(tables: FilterTables) -> None:
        await tables.ensure(TABLES[:1])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"forged", ("127.0.0.1", 4789))
        assert "packets 1 " in listed(machine)
        assert await tables.ensure([replace(TABLES[0], sets=(more,))]) == ["inet kohaku-overlay"]
        assert await tables.ensure([replace(TABLES[0], sets=(more,))]) == []
        assert "packets 1 " in listed(machine)
        await tables.take_away()

    in_kernel(machine, steps)


def test_a_filter_that_the_kernel_does_not_take_is_named_and_changes_nothing(
    machine: Namespaces,
) -> None:
    broken = replace(TABLES[1], rules="  chain c {\n    no such words\n  }\n")

    async def steps(tables: FilterTables) -> None:
        with pytest.raises(NetworkFault, match="filter bridge kohaku-overlay, inet kohaku-overlay cannot"):
            await tables.ensure([TABLES[0], broken])
        assert "kohaku" not in listed(machine)

    in_kernel(machine, steps)


# The chain of the engine

RULES = (
    Accepted(from_link="kohaku-overlay", to_link="kohaku-overlay", source=IPv4Network("10.128.0.0/12")),
    Accepted(destination=IPv4Network("10.128.64.9/32")),
)


@pytest.mark.parametrize("variant", ["iptables-nft", "iptables-legacy"])
def test_rules_in_the_chain_of_the_engine_are_kept_and_taken_away(machine: Namespaces, variant: str) -> None:
    def ensured(*rules: Accepted) -> list[str]:
        return machine.call(lambda: asyncio.run(ensure_accepted("kohaku-overlay", rules)))

    def chain() -> list[str]:
        return machine.run(variant, "-S", "DOCKER-USER").stdout.splitlines()

    assert ensured(*RULES) == [], "without an engine there is nothing to do"
    for words in ("-N DOCKER-USER", "-A DOCKER-USER -s 10.5.0.0/16 -j DROP", "-A DOCKER-USER -j RETURN"):
        machine.run(variant, *words.split())
    before = chain()
    assert ensured(*RULES) == [variant]
    assert len(chain()) == len(before) + 2
    assert ensured(*RULES) == []
    for words in ("-D DOCKER-USER 1", "-F DOCKER-USER", "-I DOCKER-USER -j RETURN"):
        machine.run(variant, *words.split())
        assert ensured(*RULES) == [variant], words
        assert ensured(*RULES) == []
    assert ensured(RULES[1]) == [variant]
    assert ensured() == [variant]
    assert chain() == ["-N DOCKER-USER", "-A DOCKER-USER -j RETURN"]
    for words in ("-F DOCKER-USER", "-X DOCKER-USER"):
        machine.run(variant, *words.split())
