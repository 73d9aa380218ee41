"""Filter tables of ours: compared with what the kernel has, and put right in one transaction.

Chains and rules are a text, as nft(8) has them. `nft` shows rules in another form than it takes them, so what
it shows once they are made is kept and compared later; after a start, tables are made anew once. Elements of
sets are compared one by one, and of a difference only that is changed. Counts of packets are no difference;
they begin at nothing when a table is made anew.

Tables of ours are known by the beginning of their names; no other one is ever named to `nft`.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from kohakuriver.network.nft_command import apply_rules, list_table, list_tables
from kohakuriver.network.programs import NetworkFault
from kohakuriver.network.shown_rules import ShownRules

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]{0,62}")
_TYPE = re.compile(r"[a-z0-9_]+(?: \. [a-z0-9_]+)*")
_MEMBER = re.compile(r"[A-Za-z0-9_.:-]+")
_FAMILIES = ("bridge", "inet", "ip")
_JOINT = " . "
_COUNTS = ("packets", "bytes")
_Shape = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class FilterSet:
    """`type` as nft(8) has it; elements as `nft -j` shows them, with ` . ` between the parts of one."""

    name: str
    type: str
    elements: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        parts = {part for element in self.elements for part in element.split(_JOINT)}
        if not all(_MEMBER.fullmatch(part) for part in parts) or not _TYPE.fullmatch(self.type):
            raise ValueError(f"the set {self.name!r} has a type or an element that is none")
        _check_name(self.name)

    def written(self, element: str) -> str:
        """Names of interfaces are quoted: they may look like numbers or words of the language."""
        parts = zip(self.type.split(_JOINT), element.split(_JOINT), strict=True)
        return _JOINT.join(f'"{part}"' if kind == "ifname" else part for kind, part in parts)


@dataclass(frozen=True, slots=True)
class FilterTable:
    """`rules` are chains and counters, which may name the sets. They are not checked here."""

    family: str
    name: str
    rules: str
    sets: tuple[FilterSet, ...] = ()

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.family not in _FAMILIES:
            raise ValueError(f"{self.family!r} is no family of tables")

    @property
    def place(self) -> str:
        return f"{self.family} {self.name}"

    @property
    def without_elements(self) -> "FilterTable":
        return replace(self, sets=tuple(replace(one, elements=frozenset()) for one in self.sets))


@dataclass(frozen=True, slots=True)
class Shown:
    """A table as the kernel has it: `shape` is all but handles, counts and elements."""

    shape: _Shape
    elements: Mapping[str, frozenset[str]] = field(default_factory=dict)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:70]!r} is no name for a table or a set")


def whole_table(wanted: FilterTable) -> str:
    """Commands that make the table, or make it anew."""
    sets = "".join(f"  set {one.name} {{ type {one.type}; }}\n" for one in wanted.sets)
    made = f"table {wanted.place}\ndelete table {wanted.place}\n"
    made += f"table {wanted.place} {{\n{sets}{wanted.rules}}}\n"
    return made + "".join(_elements("add", wanted, one, one.elements) for one in wanted.sets)


def changes(wanted: FilterTable, shown: Shown | None, made: _Shape | None) -> str:
    """Commands that bring what is shown to what is wanted; "" where there is nothing to do.

    `made` is the shape that was shown when these rules had just been made; None: that is not known.
    """
    names = {one.name for one in wanted.sets}
    if shown is None or made is None or shown.shape != made or shown.elements.keys() != names:
        return whole_table(wanted)
    text = ""
    for one in wanted.sets:
        text += _elements("delete", wanted, one, shown.elements[one.name] - one.elements)
        text += _elements("add", wanted, one, one.elements - shown.elements[one.name])
    return text


def _elements(verb: str, table: FilterTable, one: FilterSet, elements: Collection[str]) -> str:
    if not elements:
        return ""
    written = ", ".join(map(one.written, sorted(elements)))
    return f"{verb} element {table.place} {one.name} {{ {written} }}\n"


def read_table(rows: Iterable[Mapping[str, Any]]) -> Shown:
    """Read what `nft -j list table` says."""
    shape: _Shape = []
    elements = {}
    for row in rows:
        for kind, facts in row.items():
            kept = {key: value for key, value in facts.items() if key != "handle"}
            if kind == "set":
                elements[kept["name"]] = frozenset(map(_element, kept.pop("elem", ())))
            shape.append({kind: _without_counts(kept)})
    return Shown(shape, elements)


def _element(shown: Any) -> str:
    return _JOINT.join(shown["concat"]) if isinstance(shown, dict) and "concat" in shown else str(shown)


def _without_counts(facts: Any) -> Any:
    if isinstance(facts, list):
        return [_without_counts(fact) for fact in facts]
    if isinstance(facts, dict):
        return {key: _without_counts(value) for key, value in facts.items() if key not in _COUNTS}
    return facts


class FilterTables:
    """Those with one beginning of their names, in one network namespace. Not to be used beside itself."""

    def __init__(self, prefix: str) -> None:
        _check_name(prefix)
        self._prefix = prefix
        self._shapes: dict[FilterTable, _Shape] = {}
        self._shown = ShownRules()

    async def ensure(self, wanted: Collection[FilterTable]) -> list[str]:
        """Bring our tables to these; return which were changed, made or removed."""
        for table in wanted:
            if not table.name.startswith(self._prefix):
                raise ValueError(f"the table {table.name!r} does not begin with {self._prefix!r}")
        there = await self._there()
        texts = {
            table.place: changes(table, there.get(table.place), self._shapes.get(table.without_elements))
            for table in wanted
        }
        texts |= {place: f"delete table {place}\n" for place in there.keys() - texts.keys()}
        changed = sorted(place for place, text in texts.items() if text)
        if changed:
            await self._apply(changed, "".join(texts[place] for place in changed))
        bare = {table.without_elements for table in wanted}
        self._shapes = {table: shape for table, shape in self._shapes.items() if table in bare}
        for table in bare - self._shapes.keys():
            # Once, just after it was made: a change behind that would be taken for ours.
            self._shapes[table] = (await _read(table.family, table.name)).shape
        return changed

    async def take_away(self) -> list[str]:
        """Remove all of our tables; return which were there."""
        return await self.ensure(())

    async def _apply(self, changed: list[str], text: str) -> None:
        try:
            await apply_rules(text)
        except NetworkFault as error:
            raise NetworkFault(f"the filter {', '.join(changed)} cannot be put right: {error}") from error

    async def _there(self) -> dict[str, Shown]:
        """Our tables by family and name."""
        found = {}
        for family, name in await self._shown.get("tables", list_tables):
            if name.startswith(self._prefix):
                found[f"{family} {name}"] = await self._shown.get(
                    (family, name), partial(_read, family, name)
                )
        return found


async def _read(family: str, name: str) -> Shown:
    return read_table(await list_table(family, name))
