"""What the rules read, and what they find."""

import ast
import re
from dataclasses import dataclass, field
from functools import cached_property

_EXCUSE = re.compile(r"#\s*shape:\s*\S")
_FILE_HEAD_LINES = 5
_PROGRAM = "src/kohakuriver/"


@dataclass(frozen=True)
class Source:
    """One file: `path` is relative to the repository, with `/`."""

    path: str
    text: str = field(repr=False)

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        """Of a file of Python; the same object each time."""
        return ast.parse(self.text, self.path)

    @property
    def room(self) -> str:
        """Name of the package below `kohakuriver`, or `""` outside of the program."""
        parts = self.path.split("/")
        return parts[2] if parts[:2] == ["src", "kohakuriver"] and len(parts) > 3 else ""

    @property
    def module(self) -> str:
        """The module's dotted name, with `kohakuriver` first; `""` outside of the program."""
        if not self.path.startswith(_PROGRAM) or not self.path.endswith(".py"):
            return ""
        return self.path.removeprefix("src/").removesuffix(".py").replace("/", ".").removesuffix(".__init__")

    @property
    def is_package(self) -> bool:
        return self.path.endswith("/__init__.py")

    def excused(self, line: int) -> bool:
        return bool(_EXCUSE.search(self.lines[line - 1]))

    @property
    def is_excused(self) -> bool:
        """Whether the file as a whole says why it breaks a rule."""
        return any(map(_EXCUSE.search, self.lines[:_FILE_HEAD_LINES]))


@dataclass(frozen=True)
class Fault:
    path: str
    line: int
    sentence: str
