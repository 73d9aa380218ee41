"""Text of other people made fit for a terminal, where nothing in a name or a message may steer it; complaints
and questions made of it.
"""

import sys
import unicodedata

import click


def neutralised(text: str) -> str:
    """Return the text with every character that is not printable written as its escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def neutralised_lines(text: str) -> str:
    """The same for text of several lines, which stay lines."""
    return "\n".join(map(neutralised, text.split("\n")))


def complain(text: str) -> None:
    """Say something on standard error, as one line."""
    print(f"kohakuriver: {neutralised(text)}", file=sys.stderr, flush=True)


def display_width(text: str) -> int:
    """Columns that neutralised text takes on a terminal: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_char_width(char) for char in text)


def _char_width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def ask_first(question: str, yes: bool) -> None:
    """Go on if the user says so, or has (`--yes`); where nobody can be asked, raise UsageError."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here; say --yes to delete without a question")
    click.confirm(neutralised(question), abort=True, err=True)
