"""What is done about a filter table, from what `nft` shows of it."""

from dataclasses import replace
from typing import Any

import pytest

from kohakuriver.network.filter_tables import FilterSet, FilterTable, Shown, changes, read_table, whole_table

PORTS = FilterSet("pinned", "ifname . ether_addr", frozenset({"veth1 . 02:00:00:00:00:01"}))
PEERS = FilterSet("peers", "ipv4_addr", frozenset({"192.0.2.1", "192.0.2.2"}))
TABLE = FilterTable("inet", "kohaku-overlay", "  chain c {\n  }\n", (PORTS, PEERS))


def shown(table: FilterTable, dropped: int = 0, handle: int = 1) -> list[dict[str, Any]]:
    """The table in the form of `nft -j`."""
    sets = [
        {
            "set": {
                "family": table.family,
                "name": one.name,
                "table": table.name,
                "type": one.type.split(" . "),
                "handle": handle + 1,
                "elem": [
                    {"concat": element.split(" . ")} if " . " in element else element
                    for element in one.elements
                ],
            }
        }
        for one in table.sets
    ]
    count = {"counter": {"packets": dropped, "bytes": dropped * 60}}
    rule = {"rule": {"family": table.family, "chain": "c", "handle": handle, "expr": [count, {"drop": None}]}}
    return [{"table": {"family": table.family, "name": table.name, "handle": handle}}, *sets, rule]


MADE = read_table(shown(TABLE))


def test_a_table_as_it_was_made_needs_nothing_whatever_was_counted_since() -> None:
    assert changes(TABLE, read_table(shown(TABLE, dropped=7, handle=40)), MADE.shape) == ""


@pytest.mark.parametrize(
    "found", [None, Shown([], {}), replace(MADE, shape=MADE.shape[:-1]), replace(MADE, elements={})]
)
def test_what_is_not_as_it_was_made_is_made_anew(found: Shown | None) -> None:
    text = changes(TABLE, found, MADE.shape)
    assert text == whole_table(TABLE)
    assert text.startswith("table inet kohaku-overlay\ndelete table inet kohaku-overlay\n")


def test_how_rules_are_shown_is_not_known_before_they_were_made_once() -> None:
    assert changes(TABLE, MADE, None) == whole_table(TABLE)


def test_of_elements_the_difference_is_written_and_names_of_links_are_quoted() -> None:
    other = replace(PORTS, elements=frozenset({"veth2 . 02:00:00:00:00:02"}))
    fewer = replace(PEERS, elements=frozenset({"192.0.2.2"}))
    assert changes(replace(TABLE, sets=(other, fewer)), MADE, MADE.shape).splitlines() == [
        'delete element inet kohaku-overlay pinned { "veth1" . 02:00:00:00:00:01 }',
        'add element inet kohaku-overlay pinned { "veth2" . 02:00:00:00:00:02 }',
        "delete element inet kohaku-overlay peers { 192.0.2.1 }",
    ]


@pytest.mark.parametrize("element", ["veth1 . 02:00 } ; flush ruleset", '"veth1" . 02:00', "", "a . b\nc"])
def test_nothing_but_an_element_gets_into_the_text_for_nft(element: str) -> None:
    with pytest.raises(ValueError, match="pinned"):
        FilterSet("pinned", "ifname . ether_addr", frozenset({element}))


@pytest.mark.parametrize(("family", "name"), [("inet", "x; flush ruleset"), ("inet x", "x"), ("inet", "")])
def test_nothing_but_a_table_is_named_to_nft(family: str, name: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        FilterTable(family, name, "")
