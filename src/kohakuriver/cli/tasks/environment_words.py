"""Variables as Docker's command line writes them: `NAME=VALUE`, `NAME` for its value here, files of both."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import click

from kohakuriver.models.errors import InvalidInput

Variable = tuple[str, str | None]
"""None: it was asked for by its name, and is not set here."""
_MOST_FILE_BYTES = 4 << 20


def read_variable(text: str) -> Variable:
    """Raises InvalidInput for what has no name of a variable."""
    from kohakuriver.models.names import check_env_name

    name, equals, value = text.partition("=")
    return check_env_name(name), value if equals else os.environ.get(name)


def read_file(path: str) -> tuple[Variable, ...]:
    """One variable a line; empty lines and those beginning with # count for nothing. Quotes stay."""
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST_FILE_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise InvalidInput(f"the variables of {path} cannot be read: {reason}") from error
    if len(text) > _MOST_FILE_BYTES:
        raise InvalidInput(f"{path} is larger than {_MOST_FILE_BYTES >> 20} MiB")
    lines = [line.removesuffix("\r").lstrip() for line in text.removeprefix("\ufeff").split("\n")]
    try:
        return tuple(read_variable(line) for line in lines if line and not line.startswith("#"))
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error


def variables_of(options: Mapping[str, Any]) -> dict[str, str]:
    """Those of the files, and before them those of the options; raises UsageError for what cannot be sent."""
    files: Iterable[tuple[Variable, ...]] = options.get("env_file", ())
    found = [pair for file in files for pair in file]
    chosen = {name: value for name, value in (*found, *options["env"]) if value is not None}
    for name, value in chosen.items():
        if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value):
            raise click.UsageError(f"the value of the variable {name} must be valid UTF-8 text")
    return chosen
