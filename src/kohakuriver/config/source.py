"""A user's configuration file: what it says, as names and values. Nothing is judged here.

The file is Python and runs here, through kohakuengine. No bytecode is kept of it: a cached copy would be used
in place of a file that was changed within the same second to one of the same length.
"""

import contextlib
import os
import stat
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kohakuriver.config.faults import ConfigFaults, Fault


@dataclass(frozen=True, slots=True)
class Source:
    """What a file gave. `lines`: where names are assigned; `imported`: those that came only by an import."""

    file: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    imported: frozenset[str] = frozenset()
    readable_by_others: bool = False


def read_source(path: Path, wanted: frozenset[str]) -> Source:
    """Run the file and return its upper-case names and those in `wanted`; raises ConfigFaults.

    When root runs this, a file that another user could have written is refused unread.
    """
    path = Path(os.path.abspath(path.expanduser()))
    info = _check_file(path)
    values, namespace = _run(path)
    for name in wanted - values.keys():
        # kohakuengine leaves imported functions, classes and modules out; such a value of a setting is a slip
        # (a forgotten call, mostly) that must not turn into the default.
        if isinstance(namespace.get(name), types.ModuleType) or callable(namespace.get(name)):
            values[name] = namespace[name]
    lines = _assigned_lines(path)
    return Source(
        file=str(path),
        values={name: value for name, value in values.items() if isinstance(name, str)},
        lines=lines,
        imported=frozenset(namespace.keys() - lines.keys()),
        readable_by_others=bool(info.st_mode & (stat.S_IRGRP | stat.S_IROTH)),
    )


def _refuse(path: Path, expected: str, line: int | None = None) -> ConfigFaults:
    return ConfigFaults((Fault(file=str(path), expected=expected, line=line),))


def _check_file(path: Path) -> os.stat_result:
    try:
        info = path.stat()
        directory = path.resolve().parent.stat()
        if stat.S_ISREG(info.st_mode):
            path.open("rb").close()
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _refuse(path, f"a file that can be read ({reason})") from error
    if not stat.S_ISREG(info.st_mode):
        raise _refuse(path, "a regular file")
    if path.suffix != ".py":
        raise _refuse(path, "a Python file, its name ending in .py")
    if os.geteuid() == 0:
        if _open_to_others(info):
            raise _refuse(path, f"a file that only root can write; chown root {path} && chmod go-w {path}")
        if _open_to_others(directory) and not directory.st_mode & stat.S_ISVTX:
            where = path.resolve().parent
            raise _refuse(path, f"a file in a directory that only root can write; chmod go-w {where}")
    return info


def _open_to_others(info: os.stat_result) -> bool:
    by_group = bool(info.st_mode & stat.S_IWGRP) and info.st_gid != 0
    return info.st_uid != 0 or by_group or bool(info.st_mode & stat.S_IWOTH)


def _run(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configuration's values, and everything that the module holds."""
    from kohakuengine import ConfigGenerator, load_config_file

    try:
        with _no_bytecode(), contextlib.redirect_stdout(sys.stderr):
            config = load_config_file(path)
    except (Exception, SystemExit) as error:
        # The file is the user's program: whatever it raises is a fault of the file, with its line.
        raise _refuse(path, f"Python that runs; {_sentence(error)}", _line_of(error, path)) from error
    if isinstance(config, ConfigGenerator):
        raise _refuse(path, "one configuration; a sweep or generator makes several")
    return dict(config.globals_dict), _module_namespace(path)


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _module_namespace(path: Path) -> dict[str, Any]:
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(path):
            return vars(module)
    return {}


def _sentence(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    first_line = text.strip().splitlines()[0][:200] if text.strip() else ""
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__


def _line_of(error: BaseException, path: Path) -> int | None:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    line, step = None, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == str(path):
            line = step.tb_lineno
        step = step.tb_next
    return line


def _assigned_lines(path: Path) -> dict[str, int]:
    """Last line on which each name is assigned. The file has just run, so it parses."""
    import ast

    stores = (
        node
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )
    return {node.id: node.lineno for node in sorted(stores, key=lambda node: node.lineno)}
