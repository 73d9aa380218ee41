"""Configuration files as we write them: every setting, its default, one line on it."""

import itertools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kohakuriver.config.programs import Program
from kohakuriver.config.settings import Setting, literal
from kohakuriver.models.errors import Conflict


def render_template(program: Program[Any], values: Mapping[str, object] | None = None) -> str:
    """Return a file for the program: its defaults, or `values` (by setting name) in their place.

    Raises KeyError for a value whose name is no setting.
    """
    changed = dict(values or {})
    unknown = changed.keys() - {setting.name for setting in program.settings}
    if unknown:
        raise KeyError(f"no settings of the {program.name}: {', '.join(sorted(unknown))}")
    typed = "from kohakuriver.models.enums import LogLevel\n" if _uses_log_level(program) else ""
    parts = [
        f'"""KohakuRiver {program.name.capitalize()} Configuration: every setting, and its default.\n\n'
        "This file is Python; values may be computed. A line that is left out counts as its default.\n"
        '"""\n\n'
        f"from kohakuengine import Config\n{typed}"
    ]
    for group, settings in itertools.groupby(program.settings, key=lambda setting: setting.group):
        parts.append(f"\n# {group}\n\n")
        parts.extend(_lines(setting, changed.get(setting.name, setting.default)) for setting in settings)
    parts.append("\n\ndef config_gen():\n    return Config.from_globals()\n")
    return "".join(parts)


def write_config_file(path: Path, text: str, *, force: bool = False) -> None:
    """Write a file that only its owner can read; raises Conflict if it exists and `force` is not set."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        if force:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
    except FileExistsError as error:
        raise Conflict(f"{path} exists already; --force writes it anew") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def _uses_log_level(program: Program[Any]) -> bool:
    return any(setting.type_name == "LogLevel" for setting in program.settings)


def _lines(setting: Setting, value: object) -> str:
    return f"# {setting.description}.\n{setting.name}: {setting.type_name} = {literal(value)}\n"
