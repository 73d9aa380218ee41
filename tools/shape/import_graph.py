"""Who imports whom in the program, late imports and those only for types included; and what must not be in
it: circles of modules, and two rooms that import each other.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping, Set

from tools.shape.sources import Fault, Source

ROOMS_OF_PARTS = frozenset({"kohakuriver", "kohakuriver.host", "kohakuriver.runner"})
"""Rooms in which a module is a part like a package. Below them, a module beside packages is what these share,
such as the control room's state, and only packages may not import each other both ways.
"""

Graph = Mapping[str, Mapping[str, int]]
"""By module: the modules that it imports, each with the line where it first does."""


def import_graph(sources: Iterable[Source]) -> dict[str, dict[str, int]]:
    by_name = {source.module: source for source in sources if source.module}
    return {name: _imports(source, by_name) for name, source in by_name.items()}


def _imports(source: Source, known: Mapping[str, Source]) -> dict[str, int]:
    found: dict[str, int] = {}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in whole]
        else:
            continue
        for name in names:
            if name in known and name != source.module:
                found.setdefault(name, node.lineno)
    return found


def import_circles(graph: Graph, path_of: Mapping[str, str]) -> Iterator[Fault]:
    for circle in circles(graph):
        first, second = circle[0], circle[1 % len(circle)]
        yield Fault(
            path_of[first], graph[first].get(second, 1), f"a circle of imports: {' -> '.join(circle)}"
        )


def circles(graph: Graph) -> Iterator[list[str]]:
    """Give one circle of each group of modules that import each other, shortest first, its first module
    repeated.
    """
    done: set[str] = set()
    for start in sorted(graph):
        if start not in done and (circle := _shortest_way_back(graph, start)):
            done.update(circle)
            yield circle


def _shortest_way_back(graph: Graph, start: str) -> list[str] | None:
    before: dict[str, str] = {}
    border = [start]
    while border:
        reached = []
        for module in border:
            for imported in graph[module]:
                if imported == start:
                    return [start, *_way(before, start, module), start]
                if imported not in before:
                    before[imported] = module
                    reached.append(imported)
        border = reached
    return None


def _way(before: Mapping[str, str], start: str, end: str) -> list[str]:
    way: list[str] = []
    while end != start:
        way.insert(0, end)
        end = before[end]
    return way


def mutual_arrows(graph: Graph, path_of: Mapping[str, str]) -> Iterator[Fault]:
    """Two members of one room that import each other, by whichever of their modules."""
    packages = {package for module in graph for package in _packages_of(module)}
    for room in sorted(packages):
        members = graph.keys() | packages if room in ROOMS_OF_PARTS else packages
        arrows = _arrows(graph, room, members)
        for one, other in sorted(arrows):
            if one < other and (other, one) in arrows:
                module, line = arrows[one, other]
                back = arrows[other, one][0]
                sentence = f"{one} and {other} import each other; the way back is in {back}"
                yield Fault(path_of[module], line, sentence)


def _packages_of(module: str) -> Iterator[str]:
    """The packages around the module."""
    while module := module.rpartition(".")[0]:
        yield module


def _arrows(graph: Graph, room: str, members: Set[str]) -> dict[tuple[str, str], tuple[str, int]]:
    """One module and line for each arrow from one member of the room to another."""
    arrows: dict[tuple[str, str], tuple[str, int]] = {}
    for module, imports in graph.items():
        for imported, line in imports.items():
            one, other = _member(module, room), _member(imported, room)
            if one != other and {one, other} <= members:
                arrows.setdefault((one, other), (module, line))
    return arrows


def _member(module: str, room: str) -> str:
    """The member of the room that the module belongs to; `""` for others, and for the room itself."""
    rest = module.removeprefix(f"{room}.")
    return f"{room}.{rest.split('.')[0]}" if rest != module else ""
