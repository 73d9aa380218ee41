"""Tests go through what the parts offer, and lie where the parts lie."""

import ast
from collections.abc import Iterable, Iterator

from tools.shape.sources import Fault, Source

_TESTS = ("tests/", "bench/")
_UNIT = "tests/unit/"
_PROGRAM = "src/kohakuriver/"
_BESIDE_THE_PROGRAM = frozenset({"project", "tools"})
"""Folders of unit tests for what is none of the program's: the repository as a whole, and its tools."""
_OF_NAMED_TUPLES = frozenset({"_asdict", "_fields", "_make", "_replace"})


def private_parts(source: Source, tree: ast.AST) -> Iterator[Fault]:
    """A private name of something that another file owns, read or replaced by a test."""
    if not source.path.startswith(_TESTS):
        return
    own = _private_names_of(tree) | _OF_NAMED_TUPLES
    for line, name in sorted({*_read(tree), *_replaced(tree)}):
        if name not in own and not source.excused(line):
            yield Fault(source.path, line, f"{name} is a part's own; go through what the part offers")


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _private_names_of(tree: ast.AST) -> set[str]:
    """What this file defines itself: functions, and names that are assigned to as such or on `self`."""
    own = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                own.add(node.name)
            case ast.Name(ctx=ast.Store()):
                own.add(node.id)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), ctx=ast.Store()):
                own.add(node.attr)
    return own


def _read(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not _is_private(node.attr):
            continue
        match node.value:
            case ast.Name(id="self" | "cls") | ast.Call(func=ast.Name(id="super")):
                continue
        yield node.lineno, node.attr


def _replaced(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """By `monkeypatch.setattr(part, "_name", …)`, or by the whole name as a text."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith(("setattr", "delattr")):
            continue
        for argument in node.args[:2]:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                name = argument.value.rpartition(".")[2]
                if _is_private(name):
                    yield node.lineno, name


def test_rooms(sources: Iterable[Source]) -> Iterator[Fault]:
    """A folder of unit tests that is no folder of the program: it was left behind by a move."""
    sources = list(sources)
    rooms = {_folder(source.path, _PROGRAM) for source in sources if source.module}
    for source in sources:
        if source.path.startswith(_UNIT) and source.path.endswith(".py"):
            room = _folder(source.path, _UNIT)
            if room not in rooms | _BESIDE_THE_PROGRAM:
                sentence = f"{_PROGRAM}{room} is no folder; a unit test lies where what it tests lies"
                yield Fault(source.path, 1, sentence)


def _folder(path: str, root: str) -> str:
    return path.removeprefix(root).rpartition("/")[0]
