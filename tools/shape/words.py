"""Words that have a better one here: docs/glossary.md lists them, each with what is said instead.

Sentences are read (comments, docstrings, texts with a blank, pages), and identifiers word by word. Code
between backticks or fences, and a text without a blank, is a name of something and is free.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tools.shape.sources import Fault, Source

GLOSSARY = "docs/glossary.md"
_PLACES = ("src/", "tests/", "bench/", "tools/", "docs/", "README.md", "CONTRIBUTING.md")
_OWN = "tools/shape/words.py"
_HEADING = "\n## Words that are not used\n"
_ROW = re.compile(r"^\| ([^|\n]+) \| ([^|\n]+) \|$", re.MULTILINE)

# Where such a word is the right one. Terms of the field, and plain English:
_SAID = (
    r"\b[Ff]ront[ -]door|\bnext door|\b[Hh]ouse rules|\bout-of-memory killer",
    r"\b[Ll]e(?:ft|ave|aves|aving)\b[^.;]{0,80}?\balone\b|^host alone$|^one task alone,|(?m:^\| session \|)",
    r"\b(?:terminal|login|browser|database) sessions?\b|\baccounts and sessions\b|\bno such session\b",
    # A session of processes, of a run of pytest, of a registration, of a shell:
    r"\bsession of its own|\b[Mm]ade once in a session|\bboot(?:,| or) session|\bA session is offered",
    r"\b(?:with|[Nn]ame) the session that|\bits session keeps|\b(?:knows no|without a|neither) sessions?\b",
)
# Identifiers that the interface, the wire, the store, stored files or a library fixes:
_FIXED = re.compile(
    r"_?sessions?|SESSIONS|SESSION_CHANGED|session_expire_hours|use_session|_open_session|session_(?:requested|started)"
    r"|start_new_session|Session|(?:Client|SSHTCP|Pty)Session|pty_session|front_door"
)
# Files about another kind of session, or with what is stored under the old name:
_OF_OTHER_SESSIONS = (
    "src/kohakuriver/runner/terminals/",
    "src/kohakuriver/dockerapi/client.py",
    "src/kohakuriver/host/dispatch/runner_link.py",
    "src/kohakuriver/runner/engines/docker/snapshots/one_layer.py",
    "src/kohakuriver/host/store/migrations/versions/",
    "tests/unit/runner/terminals/",
)
_CODE_IN_PAGES = (r"(?ms)^ *```.*?^ *```", r"`[^`]*`", r"\]\([^)]*\)")
_CODE_IN_TEXTS = (r"`[^`]*`", r"--[a-z-]+", r"\w+[.=]\w+")


@dataclass(frozen=True)
class _Text:
    line: int
    text: str
    code: tuple[str, ...] = ()
    """What in it is code, not said."""


def unwanted_words(sources: Iterable[Source]) -> Iterator[Fault]:
    sources = list(sources)
    instead = next((_listed(source.text) for source in sources if source.path == GLOSSARY), {})
    if instead:
        for source in sources:
            if source.path.startswith(_PLACES) and source.path != _OWN:
                yield from _found(source, instead)


def _listed(glossary: str) -> dict[str, str]:
    """What is said instead, by word."""
    rows = _ROW.findall(glossary.partition(_HEADING)[2])[2:]
    return {word: said for words, said in rows for word in words.split(", ")}


def _found(source: Source, instead: Mapping[str, str]) -> Iterator[Fault]:
    anywhere = re.compile(rf"\b(?:{'|'.join(map(re.escape, instead))})\b", re.IGNORECASE)
    for found in _texts(source):
        if not anywhere.search(found.text):
            continue
        for match in anywhere.finditer(_without((*found.code, *_SAID), found.text)):
            word = match[0].lower()
            if not (word.startswith("session") and source.path.startswith(_OF_OTHER_SESSIONS)):
                line = found.line + found.text.count("\n", 0, match.start())
                yield Fault(source.path, line, f"{match[0]!r} is not used here, but {instead[word]}")


def _without(patterns: Iterable[str], text: str) -> str:
    for pattern in patterns:
        text = re.sub(pattern, lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    return text


def _texts(source: Source) -> Iterator[_Text]:
    """Sentences, and identifiers as words."""
    if source.path.endswith(".md"):
        page = source.text.partition(_HEADING)[0] if source.path == GLOSSARY else source.text
        yield _Text(1, page, _CODE_IN_PAGES)
    elif source.path.endswith(".py"):
        for number, line in enumerate(source.lines, 1):
            if comment := re.search(r"(?:^|\s)#\s[^\"']*$", line):
                yield _Text(number, comment[0], _CODE_IN_TEXTS)
        names: dict[str, int] = {}
        for node in ast.walk(source.tree):
            match node:
                case ast.Constant(value=str(text)) if " " in text:
                    yield _Text(node.lineno, text, _CODE_IN_TEXTS)
                case (
                    ast.Name(id=name)
                    | ast.Attribute(attr=name)
                    | ast.arg(arg=name)
                    | ast.FunctionDef(name=name)
                    | ast.AsyncFunctionDef(name=name)
                    | ast.ClassDef(name=name)
                ):
                    names.setdefault(name, node.lineno)
        for name, number in names.items():
            yield from _words_of(name, number)


def _words_of(name: str, line: int) -> Iterator[_Text]:
    """One by one, so that no word of two is looked for in them; and `alone` ends many a name well."""
    if not _FIXED.fullmatch(name):
        words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
        yield from (_Text(line, word) for word in words if word.lower() != "alone")
