"""What sentences and pages tell people to type is there: commands by their names, options of theirs."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kohakuriver.cli.main import root

ROOT = Path(__file__).parents[3]
ADVICE = re.compile(r"`kohakuriver ([a-z][^`]*)`")
BLOCK_LINE = re.compile(r"^(?:[^`|]*\| )?kohakuriver ([a-z][^#|<>`]*)")


def texts_of(path: Path) -> Iterator[str]:
    """Strings of a source file, with `X` for what is filled in; docstrings among them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def advice() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "src").rglob("*.py")):
        for text in texts_of(path):
            for match in ADVICE.finditer(text):
                yield str(path.relative_to(ROOT)), match[1]
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = path.read_text()
        for match in [*ADVICE.finditer(text), *filter(None, map(BLOCK_LINE.match, text.splitlines()))]:
            yield path.name, match[1]


def fault_of(words: list[str]) -> str | None:
    """What is wrong with a command line; None: nothing that can be seen without running it."""
    command: click.Command = root
    context = click.Context(root)
    while isinstance(command, click.Group) and words:
        if not re.fullmatch(r"[a-z][a-z-]*", words[0]) or command.name == "ssh":
            return None  # what it is of is left open, or is for another program
        found = command.get_command(context, words[0])
        if found is None:
            return f"no command {words[0]}"
        command, context = found, click.Context(found, parent=context)
        words = words[1:]
    if isinstance(command, click.Group):
        return None
    known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    for word in " ".join(words).replace("|-", " -").split():
        if not word.startswith("-"):
            if not command.context_settings.get("allow_interspersed_args", True):
                return None  # from here on it is somebody else's command
            continue
        option = word.strip("[]().,;…$").partition("=")[0]
        joined = re.fullmatch(r"-[a-z]{2,3}", option)  # `-it` is `-i -t`
        options = {f"-{letter}" for letter in option[1:]} if joined else {option}
        if not options <= known | {"--help", "-h", "-", "--"}:
            return f"no option {option}"
    return None


def test_what_people_are_told_to_type_is_there() -> None:
    found = list(advice())
    assert len(found) > 60
    wrong = [(place, text, fault) for place, text in found if (fault := fault_of(text.split()))]
    assert not wrong


@pytest.mark.parametrize(
    "text", ["tunnel ID 80", "task logs --folow 1", "vps nonsense", "node drain N --move --wat"]
)
def test_advice_that_is_wrong_is_found(text: str) -> None:
    assert fault_of(text.split())
