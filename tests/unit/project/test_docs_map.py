"""The map of the architecture names every folder of the program, and no other."""

import re
from pathlib import Path

_ROOT = Path(__file__).parents[3]
_PROGRAM = _ROOT / "src" / "kohakuriver"
_MAP = _ROOT / "docs" / "design" / "0001-architecture.md"
_FOLDER = re.compile(r"( *)([a-z_]+)/ +\S")


def _folders_of_the_map() -> list[str]:
    tree = _MAP.read_text().split("```")[1]
    found: list[str] = []
    above: list[str] = []
    for match in filter(None, map(_FOLDER.match, tree.splitlines())):
        above[len(match[1]) // 2 - 1 :] = [match[2]]
        found.append("/".join(above))
    return found


def test_every_folder_of_the_program_is_in_the_map() -> None:
    files = (path for path in _PROGRAM.rglob("*") if path.is_file() and path.suffix != ".pyc")
    there = {path.parent.relative_to(_PROGRAM).as_posix() for path in files} - {"."}
    named = _folders_of_the_map()
    assert len(named) == len(set(named))
    assert set(named) == there


def test_every_module_beside_the_folders_is_in_the_map() -> None:
    text = _MAP.read_text()
    modules = {path.name for path in _PROGRAM.glob("*.py")} - {"__init__.py"}
    assert {name for name in modules if f"`{name}`" not in text} == set()
