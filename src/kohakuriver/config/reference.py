"""The tables of docs/settings.md, made from the tables of settings.

`python -m kohakuriver.config.reference docs/settings.md` puts them between the document's markers.
"""

import itertools
import re
import sys
from pathlib import Path
from typing import Any

from kohakuriver.config.programs import CLIENT, HOST, RUNNER, Program
from kohakuriver.config.settings import Setting, literal

_MARKED = re.compile(
    r"(?P<open><!-- settings: (?P<program>\w+) -->\n).*?(?P<close><!-- end -->\n)", re.DOTALL
)


def render_reference(program: Program[Any]) -> str:
    """Markdown tables of a program's settings, a heading for each group."""
    parts = []
    for group, settings in itertools.groupby(program.settings, key=lambda setting: setting.group):
        parts.append(f"### {group}\n\n| Setting | Type | Default | What it is | Must be |\n")
        parts.append("| --- | --- | --- | --- | --- |\n")
        parts.extend(_row(setting) for setting in settings)
        parts.append("\n")
    return "".join(parts)


def with_tables(document: str) -> str:
    """Return the document with its tables made anew."""
    programs = {program.name: program for program in (RUNNER, HOST, CLIENT)}

    def table(match: re.Match[str]) -> str:
        return f"{match['open']}\n{render_reference(programs[match['program']])}{match['close']}"

    return _MARKED.sub(table, document)


def _row(setting: Setting) -> str:
    cells = (
        f"`{setting.name}`",
        setting.type_name,
        f"`{literal(setting.default)}`",
        setting.description,
        setting.rule.expected,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(with_tables(target.read_text(encoding="utf-8")), encoding="utf-8")
