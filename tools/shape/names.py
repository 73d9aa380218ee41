"""Names between backticks, in docstrings and comments, that look like ours and that nothing has.

A name of several words (`write_private`, `LinkKeys`) has to stand somewhere in code or in a text of it. A
dotted name counts as ours if it begins with `kohakuriver`, a package or a class of the program. It may leave
out packages at its beginning, and end with what a module or a class holds. A path counts as ours if it begins
with a folder that the repository or the program has at its top. What stands as a text in the code is a name
of something else (a protocol, a registry, a file).
"""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tools.shape.sources import Fault, Source

_DOTTED = re.compile(r"`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:\(\))?`")
_PATH = re.compile(r"`((?:[a-z_0-9]+/)+(?:[a-z_0-9]+(?:\.py)?)?)`")
_WORDS = re.compile(r"`(_*[A-Za-z]+_\w+|[A-Z][a-z]+[A-Z]\w*)(?:\(\))?`")
_COMMENT = re.compile(r"(?:^|  )#[^\n]*`[^\n]*", re.MULTILINE)
_PROGRAM = "src/kohakuriver/"


@dataclass
class _Class:
    members: set[str] = field(default_factory=set)
    bases: set[str] = field(default_factory=set)


def lost_names(sources: Iterable[Source]) -> Iterator[Fault]:
    sources = list(sources)
    known = _Known(sources)
    for source in sources:
        for line, text in _prose(source) if source.path.endswith(".py") else ():
            for at, sentence in known.lost_in(text):
                yield Fault(source.path, line + text.count("\n", 0, at), sentence)


def _prose(source: Source) -> Iterator[tuple[int, str]]:
    """Docstrings and comments, with the lines where they begin."""
    for node in _docstrings(source.tree):
        if isinstance(node.value, str):
            yield node.lineno, node.value
    for comment in _COMMENT.finditer(source.text):
        yield 1 + source.text.count("\n", 0, comment.start()), comment[0]


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Those of attributes too, which no function of `ast` knows."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


class _Known:
    def __init__(self, sources: list[Source]) -> None:
        paths = [source.path for source in sources]
        self._paths = {path.removesuffix(".py") for path in paths}
        self._paths |= {
            "/".join(path.split("/")[:end]) for path in paths for end in range(1, path.count("/") + 1)
        }
        self._tops = {path.split("/")[0] for path in self._paths if "/" in path}
        self._tops |= {path.split("/")[2] for path in self._paths if path.startswith(_PROGRAM)}
        self._modules: dict[tuple[str, ...], set[str]] = {}
        self._packages = {"kohakuriver"}
        self._classes: dict[str, _Class] = {}
        self._texts: set[str] = set()
        self._words: set[str] = set()
        for source in sources:
            if source.path.endswith(".py"):
                self._read(source.tree)
            elif not source.path.endswith(".md"):
                self._words.update(re.findall(r"\w+", source.text))
            if source.module:
                self._add(source)

    def _read(self, tree: ast.Module) -> None:
        texts = _texts(tree)
        self._texts |= texts
        self._words.update(word for text in texts for word in re.findall(r"\w+", text))
        self._words.update(_identifiers(tree))

    def _add(self, source: Source) -> None:
        name = tuple(source.module.split("."))
        self._modules[name] = set(_held(source.tree.body))
        if source.is_package:
            self._packages.add(name[-1])
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                known = self._classes.setdefault(node.name, _Class())
                known.members |= {*_held(node.body), *_assigned(node)}
                known.bases |= {ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases}

    def lost_in(self, text: str) -> Iterator[tuple[int, str]]:
        """What it names in vain, each with its place in the text."""
        for found in _DOTTED.finditer(text):
            if self.is_ours(found[1]) and not self.has(found[1]):
                yield found.start(), f"nothing is named {found[1]}"
        for found in _WORDS.finditer(text):
            if found[1] not in self._words:
                yield found.start(), f"nothing is named {found[1]}"
        for found in _PATH.finditer(text):
            if not self.has_path(found[1].rstrip("/")):
                yield found.start(), f"there is no {found[1]}"

    def is_ours(self, name: str) -> bool:
        first = name.split(".", maxsplit=1)[0]
        return (first in self._packages or first in self._classes) and name not in self._texts

    def has(self, name: str) -> bool:
        parts = tuple(name.split("."))
        if parts[0] in self._classes:
            return self._class_has(*parts[:2])
        ends = (
            (end, module, held) for module, held in self._modules.items() for end in range(1, len(parts) + 1)
        )
        return any(
            module[-end:] == parts[:end] and self._holds(held, parts[end:]) for end, module, held in ends
        )

    def _holds(self, held: set[str], rest: tuple[str, ...]) -> bool:
        if not rest:
            return True
        is_member = len(rest) == 1 or rest[0] not in self._classes or self._class_has(*rest[:2])
        return rest[0] in held and is_member

    def _class_has(self, name: str, member: str) -> bool:
        """Also what it may have from a class that is not ours."""
        known = self._classes.get(name)
        if known is None:
            return name not in {"Protocol", "Generic"}
        return member in known.members or any(self._class_has(base, member) for base in known.bases - {name})

    def has_path(self, path: str) -> bool:
        """Whether it is there, from the top or below the program; True for what is not ours."""
        path = path.removesuffix(".py")
        return path.split("/")[0] not in self._tops or any(
            known == path or known.endswith(f"/{path}") for known in self._paths
        )


def _texts(tree: ast.Module) -> set[str]:
    """The texts in the code that are no docstrings."""
    prose = {id(node) for node in _docstrings(tree)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in prose)
    return {constant.value for constant in constants if isinstance(constant.value, str)}


def _identifiers(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case (
                ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name))
            ):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.alias(name=name) | ast.ImportFrom(module=str(name)):
                yield from name.split(".")


def _held(body: list[ast.stmt]) -> Iterator[str]:
    """Names that the statements of a module or a class define or import."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (name.id for to in targets for name in ast.walk(to) if isinstance(name, ast.Name))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.If | ast.Try):
            yield from _held(node.body)


def _assigned(node: ast.ClassDef) -> Iterator[str]:
    """Attributes that the methods of a class assign."""
    for found in ast.walk(node):
        if isinstance(found, ast.Attribute) and isinstance(found.ctx, ast.Store):
            yield found.attr
