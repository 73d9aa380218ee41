"""What is wrong with a configuration, all of it at once."""

from dataclasses import dataclass
from typing import ClassVar

from kohakuriver.models.errors import KohakuRiverError

_SHOWN_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `setting` and `value` are None where the file itself is at fault."""

    file: str
    expected: str
    setting: str | None = None
    value: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        subject = "" if self.setting is None else f" {self.setting} = {self.value}:"
        return one_line(f"{place}:{subject} expected {self.expected}")


class ConfigFaults(KohakuRiverError):
    """A configuration that nothing may be started with; a program that meets it ends with `exit_status`."""

    code = "bad_configuration"
    exit_status: ClassVar[int] = 78  # EX_CONFIG of sysexits.h

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


def shown(value: object) -> str:
    """Write a value of a user's file in one short line, whatever it is."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - repr is the user's code here, and ints past 4300 digits raise too
        return f"({type(value).__name__} that cannot be shown: {type(error).__name__})"
    text = one_line(text)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def one_line(text: str) -> str:
    """Escape what would break a line, control a terminal or not encode."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
