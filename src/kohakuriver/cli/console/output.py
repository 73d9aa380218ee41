"""Records on standard output in the form that `-o` asks for.

`json` and `yaml` print the API's own records and nothing else; `name` prints what identifies each record,
one a line. Tables are laid out here: plain columns, with colour on a terminal unless NO_COLOR is set.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from kohakuriver.cli.console.plain_text import complain, display_width, neutralised, neutralised_lines

F = TypeVar("F", bound=Callable[..., Any])

FORMATS = ("table", "json", "yaml", "name")
_GAP = "   "
_COLOURS = {
    "running": "green",
    "online": "green",
    "completed": "green",
    "ready": "green",
    "failed": "red",
    "offline": "red",
    "killed_oom": "red",
    "lost": "red",
    "rejected": "red",
    "killed": "yellow",
    "paused": "yellow",
    "pending": "cyan",
    "pending_approval": "cyan",
    "assigning": "cyan",
}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under headings; cells are text as it came, neutralised when printed.

    `state_column`: the column whose words are coloured. `empty`: the sentence in place of no rows.
    """

    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    state_column: int | None = None
    empty: str = "Nothing to show."


@dataclass(frozen=True, slots=True)
class Facts:
    """One record as labelled lines, neutralised when printed; a line whose value is empty is left out."""

    lines: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Records:
    """What a command has to show: the API's answer, how a person reads it, and the names in it.

    `left_out`: says so if there is more than this, on standard error, whatever form the output has.
    """

    raw: Any
    view: Table | Facts
    names: Sequence[str]
    left_out: str = ""


def output_option(function: F) -> F:
    """Give a command `-o`; it arrives as the argument `output`."""
    option = click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        callback=_chosen_format,
        help="Form of the output (table, if nothing is said); json and yaml are the records of the API.",
    )
    return option(function)


def _chosen_format(context: click.Context, _parameter: click.Parameter, said: str | None) -> str:
    from kohakuriver.cli.host_choice import HostChoice

    chosen_host = context.find_object(HostChoice)
    return said or (chosen_host.output_format if chosen_host else "table")


def show(records: Records, output: str, *, one_line: bool = False) -> None:
    """Print records on standard output; `one_line` packs JSON so that a repeated one can be read by line."""
    if output == "json":
        text = json_text(records.raw, one_line=one_line)
    elif output == "yaml":
        text = yaml_text(records.raw)
    elif output == "name":
        text = "\n".join(neutralised(name) for name in records.names)
    else:
        text = view_text(records.view, colour=has_colour())
    if text:
        print(text, flush=True)
    if records.left_out:
        complain(records.left_out)


def cut_sentence(what: str, limit: int) -> str:
    """Say that a list with `--limit` is not whole."""
    return f"these are the newest {limit} {what}, and there are more; -l N shows so many, up to 1000"


def view_text(view: Table | Facts, *, colour: bool = False) -> str:
    """Lay a table or facts out as text."""
    return _facts_text(view) if isinstance(view, Facts) else _table_text(view, colour)


def has_colour() -> bool:
    """Tell whether standard output is a terminal that may show colour."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def json_text(raw: Any, *, one_line: bool = False) -> str:
    """JSON with text readable as it is, but for control characters, which would reach a terminal raw."""
    text = json.dumps(raw, ensure_ascii=False, indent=None if one_line else 2)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else _json_escape(char) for char in text)


def _json_escape(char: str) -> str:
    return json.dumps(char)[1:-1] if ord(char) > 127 else f"\\u{ord(char):04x}"


def yaml_text(raw: Any) -> str:
    """YAML with text readable as it is, but for what could steer a terminal, which stands as its escape."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes text in the one style that has escapes where it needs them."""

        def represent_text(self, value: str) -> yaml.Node:
            style = None if value.replace("\n", "").isprintable() else '"'
            return self.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, Dumper.represent_text)
    text: str = yaml.dump(raw, Dumper=Dumper, sort_keys=False, allow_unicode=True)
    # What YAML holds for printable, and a terminal does not, stands raw even between quotes.
    return neutralised_lines(text.rstrip("\n"))


def _facts_text(facts: Facts) -> str:
    # A label may hold a name too, as in "Not on <node>".
    shown = [(neutralised(label), neutralised(value)) for label, value in facts.lines if value]
    width = max((display_width(label) for label, _ in shown), default=0)
    return "\n".join(f"{_padded(label, width)}{_GAP}{value}" for label, value in shown)


def _table_text(table: Table, colour: bool) -> str:
    if not table.rows:
        return table.empty
    cells = [table.headings, *(tuple(neutralised(cell) for cell in row) for row in table.rows)]
    widths = [max(display_width(cell) for cell in column) for column in zip(*cells, strict=True)]
    lines = []
    for number, row in enumerate(cells):
        padded = [_padded(cell, width) for cell, width in zip(row, widths, strict=True)]
        padded[-1] = row[-1]
        if colour and number == 0:
            padded = [click.style(cell, bold=True) for cell in padded]
        elif colour and table.state_column is not None:
            place = table.state_column
            padded[place] = click.style(padded[place], fg=_COLOURS.get(row[place]))
        lines.append(_GAP.join(padded).rstrip())
    return "\n".join(lines)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - display_width(text))
