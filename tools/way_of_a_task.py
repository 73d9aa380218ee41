"""Counts the files that one command task passes through, from what the architecture's map names as its way.

`docs/design/0001-architecture.md` lists, under "The way of a task", the functions that act on a task one
after the other, between backticks (`host.control.turn.Turn.step`). A file counts once, however many of its
functions are named. So that the list leaves nothing out, each function must exist, and must be called by one
that is named before it. Only the first of an item need not be: what begins there comes over the wire, out of
a queue, or from a task of its own, as the item says. What a function asks beside the way (checks,
conversions, the models) does not count, nor what every request or every call passes (the front door,
permissions, seals).

Prints the files and what is wrong with the list, and ends with 1 when anything is, or when the files are too
many.
"""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from tools.shape.sources import Source  # noqa: E402 - found once the path is set

MAX_FILES = 45
MAP = Path("docs/design/0001-architecture.md")
_SECTION = re.compile(r"^## The way of a task\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_ITEM = re.compile(r"^\d+\. ", re.MULTILINE)
_NAME = re.compile(r"`([a-z_]\w*(?:\.\w+)+)`")


@dataclass(frozen=True)
class Way:
    """The files in the order in which a task comes to them, and what is wrong with the list."""

    files: tuple[str, ...]
    faults: tuple[str, ...]


def way_of_a_task(document: str, sources: Mapping[str, Source]) -> Way:
    """`sources`: the program's modules by their names without `kohakuriver`."""
    files: dict[str, None] = {}
    faults: list[str] = []
    called: set[str] = set()
    for is_first, name in _named(document):
        module = _module_of(name, sources)
        node = module and _defined(sources[module].tree, name.removeprefix(module).strip(".").split("."))
        if not module or not node:
            faults.append(f"there is no {name}")
            continue
        if not is_first and name.split(".")[-1] not in called:
            faults.append(f"{name} is not called by what is named before it")
        files[sources[module].path] = None
        called.update(_mentioned(node))
    if not files and not faults:
        faults.append("the way of a task is not there")
    return Way(tuple(files), tuple(faults))


def _named(document: str) -> Iterator[tuple[bool, str]]:
    """Each name, and whether it is the first of its item."""
    section = _SECTION.search(document)
    for item in _ITEM.split(section[1] if section else "")[1:]:
        for place, found in enumerate(_NAME.finditer(item)):
            yield place == 0, found[1]


def _module_of(name: str, sources: Mapping[str, Source]) -> str | None:
    parts = name.split(".")
    candidates = (".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
    return next((module for module in candidates if module in sources), None)


def _defined(tree: ast.Module, path: list[str]) -> ast.AST | None:
    """The class or function at the end of the path."""
    node: ast.AST = tree
    for name in path:
        members = getattr(node, "body", [])
        found = next((member for member in members if getattr(member, "name", None) == name), None)
        if found is None:
            return None
        node = found
    return node


def _mentioned(node: ast.AST) -> Iterator[str]:
    """Names of what it calls, or hands on to be called."""
    for found in ast.walk(node):
        if isinstance(found, ast.Name):
            yield found.id
        elif isinstance(found, ast.Attribute):
            yield found.attr


def program() -> dict[str, Source]:
    """The modules of the program as they lie there."""
    texts = ((path.relative_to(ROOT).as_posix(), path) for path in (ROOT / "src").rglob("*.py"))
    sources = (Source(name, path.read_text(encoding="utf-8")) for name, path in texts)
    return {source.module.removeprefix("kohakuriver."): source for source in sources}


def main() -> int:
    way = way_of_a_task((ROOT / MAP).read_text(encoding="utf-8"), program())
    for number, file in enumerate(way.files, 1):
        print(f"{number:3} {file}")
    for fault in way.faults:
        print(f"{MAP}: {fault}")
    if len(way.files) > MAX_FILES:
        print(f"{MAP}: {len(way.files)} files; at most {MAX_FILES}")
    return 1 if way.faults or len(way.files) > MAX_FILES else 0


if __name__ == "__main__":
    sys.exit(main())
