"""Commands and options that documents and messages of ours name are there."""

import re
import shlex
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import click
import pytest

from kohakuriver.cli.main import root

_ROOT = Path(__file__).parents[3]
_DOCUMENTS = [_ROOT / "README.md", _ROOT / "CONTRIBUTING.md", *sorted((_ROOT / "docs").glob("*.md"))]
_SOURCES = sorted((_ROOT / "src").rglob("*.py"))
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_SHELL = {"", "bash", "sh"}
_SPAN = re.compile(r"`([^`\n]+)`")
_OPERATORS = ";&|()<>"
_BEFORE_A_COMMAND = {"do", "then", "else", "while", "until", "if", "!", "{"}


def _blocks(document: Path) -> Iterator[str]:
    for _, language, text in _BLOCK.findall(document.read_text(encoding="utf-8")):
        if language in _SHELL:
            yield text.replace("\\\n", " ")


def _simple_commands(line: str) -> Iterator[list[str]]:
    """The commands of a shell's line, without redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=_OPERATORS)
    lexer.whitespace_split = True
    words: list[str] = []
    is_redirected = False
    for token in chain(lexer, [";"]):
        if token[0] not in _OPERATORS:
            if not is_redirected:
                words.append(token)
            is_redirected = False
        elif token[0] in "<>":
            is_redirected = True
        else:
            while words and (words[0] in _BEFORE_A_COMMAND or "=" in words[0]):
                del words[0]
            yield words
            words = []


def _shown_commands(document: Path) -> list[list[str]]:
    """Arguments of each `kohakuriver` in a document's shell blocks."""
    lines = [line for text in _blocks(document) for line in text.splitlines() if "kohakuriver " in line]
    simple = [words for line in lines for words in _simple_commands(line)]
    return [words[1:] for words in simple if words and Path(words[0]).name == "kohakuriver"]


def _refusal(arguments: list[str]) -> str | None:
    """What the command line says against these words; it does nothing (see `nothing_done`)."""
    try:
        root.main(arguments, prog_name="kohakuriver", standalone_mode=False)
    except click.MissingParameter as error:
        return error.format_message()
    except click.BadParameter as error:
        # Files that documents name are not here.
        is_a_file = error.param is not None and isinstance(error.param.type, click.Path)
        return None if is_a_file else error.format_message()
    except click.UsageError as error:
        return error.format_message()
    return None


@pytest.fixture
def nothing_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words are read and checked as ever, and no command begins."""
    monkeypatch.setattr(click.Command, "invoke", lambda self, ctx: None)


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: str(path.relative_to(_ROOT)))
def test_commands_that_a_document_shows_are_taken(document: Path, nothing_done: None) -> None:
    shown = _shown_commands(document)
    refused = {shlex.join(words): _refusal(words) for words in shown}
    assert {words: refusal for words, refusal in refused.items() if refusal} == {}


def test_the_documents_show_commands() -> None:
    """What finds none would find no wrong one either."""
    shown = [words for document in _DOCUMENTS for words in _shown_commands(document)]
    assert len(shown) > 50
    assert ["run", "-n", "--", "work", "$x"] in list(
        words[1:]
        for words in _simple_commands('cat l | while read x; do kohakuriver run -n -- work "$x"; done')
    )


def test_a_command_that_is_not_there_is_refused(nothing_done: None) -> None:
    assert "hoots" in (_refusal(["node", "hoots"]) or "")
    assert "--shiny" in (_refusal(["run", "--shiny", "true"]) or "")


def _named(command: click.Command | None, words: list[str]) -> str | None:
    """What of these words no command has: a command's name, or one of its options; None if all are there."""
    assert command is not None
    if (
        isinstance(command, click.Group)
        and command.name == "ssh"
        and words
        and words[0] not in ("config", "connect")
    ):
        return _named(command.get_command(click.Context(command), "session"), words)
    left = list(words)
    while left and left[0] != "--":
        word = left.pop(0)
        if word.startswith("-") and len(word) > 1:
            if (unknown := _unknown_option(command, word.partition("=")[0], left)) is not None:
                return unknown
        elif isinstance(command, click.Group):
            below = command.get_command(click.Context(command), word)
            is_a_name = word.islower() and word.isalpha()
            return _named(below, left) if below is not None else word if is_a_name else None
        elif not command.context_settings.get("allow_interspersed_args", command.allow_interspersed_args):
            return None
    return None


def _unknown_option(command: click.Command, word: str, behind: list[str]) -> str | None:
    """The option, or the letter in `-it`, that is none of the command's; takes its value from `behind`."""
    options = {
        name: option
        for option in command.get_params(click.Context(command))
        for name in option.opts + option.secondary_opts
    }
    is_one = word in options or word.startswith("--")
    for part in [word] if is_one else [f"-{letter}" for letter in word[1:]]:
        if part not in options:
            return part
        option = options[part]
        if isinstance(option, click.Option) and not (option.is_flag or option.count) and behind:
            del behind[0]
    return None


def _wrong_names(spans: list[str]) -> list[str]:
    wrong = []
    for span in spans:
        words = re.sub(r"\{[^}]*\}", "X", span).replace("[", " ").replace("]", " ").split()[1:]
        alternatives = [part for word in words for part in word.split("|")]
        if (missing := _named(root, alternatives)) is not None:
            wrong.append(f"{span}: there is no {missing}")
    return wrong


def _commands_named_in(text: str) -> Iterator[str]:
    """Those in the running text, with the program's name or without. What another program has, too, counts
    only with it."""
    for span in _SPAN.findall(_BLOCK.sub("", text)):
        first, *others = span.split() or [""]
        if first == "kohakuriver":
            yield span
        elif first not in {"docker", "ssh"} and first in root.list_commands(click.Context(root)) and others:
            yield f"kohakuriver {span}"


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: str(path.relative_to(_ROOT)))
def test_commands_that_the_text_of_a_document_names_are_there(document: Path) -> None:
    assert _wrong_names(list(_commands_named_in(document.read_text(encoding="utf-8")))) == []


def test_commands_that_messages_advise_are_there() -> None:
    spans = [span for source in _SOURCES for span in _SPAN.findall(source.read_text(encoding="utf-8"))]
    advised = [span for span in spans if span.startswith("kohakuriver ")]
    assert len(advised) > 30
    assert _wrong_names(advised) == []
    assert _wrong_names(list(_commands_named_in("with `node drain N` or `node wake N`"))) != []
    assert _wrong_names(["kohakuriver node wake {node}"]) == [
        "kohakuriver node wake {node}: there is no wake"
    ]
