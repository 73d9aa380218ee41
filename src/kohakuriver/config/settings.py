"""What a setting is. The dataclasses of this package are the tables: each field is one setting.

A field's name in upper case is the setting's name, its annotation the type, its default the default; group,
description and rule stand in the field's metadata. Loading, checking, the templates, `config show` and the
tables of docs/settings.md are all made from `settings_of`.
"""

import dataclasses
from collections.abc import Callable
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeVar

from kohakuriver.models.enums import LogLevel

T = TypeVar("T")

HIDDEN = "(hidden)"
MUST_MATCH = (
    "SHARED_DIR",
    "OVERLAY_ENABLED",
    "OVERLAY_SUBNET",
    "OVERLAY_VXLAN_ID",
    "OVERLAY_VXLAN_PORT",
    "OVERLAY_MTU",
)
"""What a runner must have as its host has it: it says so when it registers, and the host compares."""
_TYPE_NAMES = {bool: "bool", int: "int", float: "float", str: "str", LogLevel: "LogLevel"}


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """What a value of the right type must be.

    `expected` completes "expected int, …"; `problem` gives None for a good value, else the reason, which is
    "" where `expected` says all. It looks at the machine at most, and changes nothing.
    """

    expected: str
    problem: Callable[[Any], str | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One line of a program's table. `secret` values are never shown."""

    name: str
    attribute: str
    type: Any
    default: Any
    group: str
    description: str
    rule: Rule
    secret: bool

    @property
    def type_name(self) -> str:
        """The type as the file writes it."""
        return _TYPE_NAMES.get(self.type, "list[str]")

    @property
    def expected(self) -> str:
        return f"{self.type_name}, {self.rule.expected}"

    def accept(self, value: object) -> Any:
        """Return the value as the config object holds it; raises TypeError for another type."""
        return _ACCEPT.get(self.type, _accept_list)(value)


def setting(default: T, group: str, description: str, rule: Rule, *, secret: bool = False) -> T:
    """Declare a setting as a dataclass field. Secrets stay out of the object's repr, and so out of logs."""
    metadata = {"group": group, "description": description, "rule": rule, "secret": secret}
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


def settings_of(config: type) -> tuple[Setting, ...]:
    """The table of settings that a config dataclass declares, in its order."""
    return tuple(
        Setting(
            name=field.name.upper(),
            attribute=field.name,
            type=field.type,
            default=field.default,
            **field.metadata,
        )
        for field in dataclasses.fields(config)
    )


def values_that_must_match(config: object) -> dict[str, Any]:
    """The settings of a host or a runner that it must share with the other, by name."""
    return {name: getattr(config, name.lower()) for name in MUST_MATCH}


def literal(value: object) -> str:
    """Write a setting's value as Python source."""
    if isinstance(value, LogLevel):
        return f"LogLevel.{value.name}"
    if isinstance(value, str):
        import json

        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    return repr(value)


def _accept_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _accept_int(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return int(value)


def _accept_float(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError
    try:
        return float(value)
    except OverflowError as error:
        raise TypeError from error


def _accept_str(value: object) -> str:
    if isinstance(value, PurePath):
        return str(value)
    # An enum member that is a string too (LogLevel.INFO) is a slip where a plain string is wanted.
    if not isinstance(value, str) or isinstance(value, Enum):
        raise TypeError
    return str(value)


def _accept_list(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(_accept_str(item) for item in value)


def _accept_log_level(value: object) -> LogLevel:
    if isinstance(value, LogLevel):
        return value
    if isinstance(value, str) and not isinstance(value, Enum):
        for level in LogLevel:
            if level.value == value.lower():
                return level
    raise TypeError


_ACCEPT: dict[Any, Callable[[object], Any]] = {
    bool: _accept_bool,
    int: _accept_int,
    float: _accept_float,
    str: _accept_str,
    LogLevel: _accept_log_level,
}
