"""From a file to a checked configuration: every value judged, every fault reported, nothing half applied."""

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from kohakuriver.config.faults import ConfigFaults, Fault, shown
from kohakuriver.config.paths import default_path, is_absent
from kohakuriver.config.programs import Program, other_programs
from kohakuriver.config.settings import HIDDEN, Setting
from kohakuriver.config.source import Source, read_source
from kohakuriver.models.enums import LogLevel

T = TypeVar("T")

DEFAULTS = "(defaults)"
_NEAR = 0.8  # likeness of two names above which the one is taken for a slip in the other
_SOUNDS_SECRET = re.compile(r"SECRET|TOKEN|PASS|KEY|URL|CREDENTIAL")


@dataclass(frozen=True, slots=True)
class Effective:
    """One setting as it stands, safe to show. `source` is `default`, or the file and line.

    `value` is a bool, number, string or list of strings; `text` is the same in one line. A faulty value is
    text in both.
    """

    setting: Setting
    value: bool | int | float | str | list[str]
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """The outcome of loading; `warnings` are sentences about what is odd and still works."""

    settings: tuple[Effective, ...]
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]
    _make: Callable[[], T]

    def config(self) -> T:
        """Return the configuration object; raises ConfigFaults if there is any fault."""
        if self.faults:
            raise ConfigFaults(self.faults)
        return self._make()


def load(program: Program[T], path: Path | None = None) -> Loaded[T]:
    """Load `path`, else the program's own file if there is one, else the defaults.

    Raises ConfigFaults if the file cannot be run at all; faults of values are in the answer.
    """
    source = _source(program, path)
    table = {setting.name: setting for setting in program.settings}
    good: dict[str, Any] = {}
    faults: list[Fault] = []
    for setting in program.settings:
        raw = source.values.get(setting.name, _default_of(setting))
        expected = judge(setting, raw)
        if expected is None:
            good[setting.name] = setting.accept(raw)
        else:
            faults.append(_fault(source, setting, raw, expected))
    for name, expected in program.findings(good):
        faults.append(_fault(source, table[name], good[name], expected))
    strays = tuple(_strays(program, source))
    faults.extend(fault for fault in strays if isinstance(fault, Fault))
    return Loaded(
        settings=tuple(_effective(source, setting) for setting in program.settings),
        faults=tuple(sorted(faults, key=lambda fault: fault.line or 0)),
        warnings=(
            *(stray for stray in strays if isinstance(stray, str)),
            *program.remarks(good),
            *_exposed_secrets(program, source),
        ),
        _make=lambda: program.config(**{table[name].attribute: value for name, value in good.items()}),
    )


def judge(setting: Setting, raw: object) -> str | None:
    """Say what was expected in place of a value, or None if it is good."""
    try:
        value = setting.accept(raw)
    except TypeError:
        return setting.expected
    problem = setting.rule.problem(value)
    if problem is None:
        return None
    return f"{setting.expected} ({problem})" if problem else setting.expected


def safe_value(setting: Setting, raw: object) -> str:
    """Write a setting's value so that no secret shows."""
    return HIDDEN if setting.secret and raw != "" else _shown(raw)


def _source(program: Program[T], path: Path | None) -> Source:
    if path is None:
        path = default_path(program.file_name)
        if is_absent(path):
            return Source(file=DEFAULTS)
    return read_source(path, frozenset(setting.name for setting in program.settings))


def _default_of(setting: Setting) -> object:
    """The default as a file would write it."""
    return list(setting.default) if isinstance(setting.default, tuple) else setting.default


def _shown(raw: object) -> str:
    return f"LogLevel.{raw.name}" if isinstance(raw, LogLevel) else shown(raw)


def _fault(source: Source, setting: Setting, raw: object, expected: str) -> Fault:
    if isinstance(raw, tuple):
        raw = list(raw)
    return Fault(
        file=source.file if setting.name in source.values else DEFAULTS,
        line=source.lines.get(setting.name),
        setting=setting.name,
        value=safe_value(setting, raw),
        expected=expected,
    )


def _effective(source: Source, setting: Setting) -> Effective:
    raw = source.values.get(setting.name, _default_of(setting))
    line = source.lines.get(setting.name)
    origin = source.file if line is None else f"{source.file}:{line}"
    text = safe_value(setting, raw)
    return Effective(
        setting=setting,
        value=text if text == HIDDEN or judge(setting, raw) else _plain(setting.accept(raw)),
        text=text,
        source=origin if setting.name in source.values else "default",
    )


def _plain(value: Any) -> Any:
    if isinstance(value, LogLevel):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def _strays(program: Program[T], source: Source) -> Iterator[Fault | str]:
    """Upper-case names of the file that are no setting: a slip is a fault, anything else a warning."""
    names = [setting.name for setting in program.settings]
    elsewhere = {setting.name: other.name for other in other_programs(program) for setting in other.settings}
    for name, raw in source.values.items():
        if name in names or not name.isupper() or name in source.imported:
            continue
        place = source.file if name not in source.lines else f"{source.file}:{source.lines[name]}"
        if name in elsewhere:
            yield f"{place}: {name} is a setting of the {elsewhere[name]}, not of the {program.name}"
            continue
        near = difflib.get_close_matches(name, names, n=1, cutoff=_NEAR)
        if not near:
            yield f"{place}: {name} is not a setting of the {program.name}; nothing reads it"
            continue
        yield Fault(
            file=source.file,
            line=source.lines.get(name),
            setting=name,
            value=HIDDEN if _SOUNDS_SECRET.search(name + near[0]) else _shown(raw),
            expected=f"the name of a setting; the nearest is {near[0]}",
        )


def _exposed_secrets(program: Program[T], source: Source) -> Iterator[str]:
    if not source.readable_by_others:
        return
    for setting in program.settings:
        if setting.secret and source.values.get(setting.name):
            yield f"{source.file}: holds {setting.name} and can be read by others; chmod 600 {source.file}"
