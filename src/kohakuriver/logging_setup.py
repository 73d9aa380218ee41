"""How both daemons log: an event's name and its fields, to the console and, where set, to a rotated file.

On a terminal a line is for people, elsewhere it is one JSON document. No secret reaches a line: fields with a
telling name, and credentials inside any text, are replaced. Tracebacks carry the values of variables only at
`FULL`, and then only plain values whose names tell no secret; a container is shown by its type and size.
"""

import logging
import logging.handlers
import os
import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from enum import Enum
from io import TextIOWrapper
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import structlog
from structlog.types import Processor

from kohakuriver.models.enums import LogLevel
from kohakuriver.models.secret_texts import HIDDEN, without_secrets

ROTATE_BYTES = 10 << 20
_KEPT_FILES = 5
_SHOWN_CHARACTERS = 200
_SECRET_FIELD = re.compile(
    r"(?:token|secret|password|credential|authorization|cookie|private_key|proof|env|env_vars)$",
    re.IGNORECASE,
)
_SECRET_VARIABLE = re.compile(
    r"token|secret|passw|credential|authorization|cookie|private|proof|invitation|^keys?$|_keys?$|env|value|body|"
    r"header|content|argument|argv|command|text|data",
    re.IGNORECASE,
)
_LEVELS = {
    LogLevel.FULL: logging.DEBUG,
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
}
_NOISY = ("aiohttp", "asyncio", "uvicorn", "httpx", "alembic", "sqlalchemy", "websockets")
AUDIT_LOGGER = "kohakuriver.audit"
"""Its lines are written at every level; see `host.audit`."""
_ALWAYS_QUIET = "asyncssh"
"""It writes user names as clients send them; the gateway says in lines of its own what happens."""


class _ClosedFile(logging.handlers.RotatingFileHandler):
    """A file that others cannot read, whatever the umask: names of users, nodes and tasks stand in it."""

    def _open(self) -> TextIOWrapper:
        return open(
            self.baseFilename, "a", encoding=self.encoding, errors=self.errors, opener=_open_closed_to_others
        )


def _open_closed_to_others(path: str, flags: int) -> int:
    return os.open(path, flags, 0o640)


def set_up_logging(level: LogLevel, log_file: str = "") -> None:
    """Send everything that is logged to standard error and to `log_file`. Called once by each daemon.

    Raises OSError if the file cannot be opened.
    """
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(_formatter(level, for_people=sys.stderr.isatty()))
    handlers: list[logging.Handler] = [console]
    if log_file:
        Path(log_file).parent.mkdir(parents=True, exist_ok=True)
        file = _ClosedFile(
            log_file,
            maxBytes=ROTATE_BYTES,
            backupCount=_KEPT_FILES,
            encoding="utf-8",
            errors="backslashreplace",
        )
        file.setFormatter(_formatter(level, for_people=False))
        handlers.append(file)
    root = logging.getLogger()
    for old in root.handlers:
        old.close()
    root.handlers = handlers
    root.setLevel(_LEVELS[level])
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.DEBUG if level is LogLevel.FULL else logging.WARNING)
    logging.getLogger(_ALWAYS_QUIET).setLevel(logging.WARNING)
    logging.getLogger(AUDIT_LOGGER).setLevel(logging.INFO)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def redacted(fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace secrets in an event's fields, at any depth."""
    for name, value in fields.items():
        if name not in ("event", "exception"):
            fields[name] = _redacted_value(name, value)
        else:
            fields[name] = without_secrets(str(value))
    return fields


def render_traceback(error: BaseException, *, with_values: bool) -> str:
    """Write a traceback, its causes included; with the values of variables where asked for."""
    written = traceback.TracebackException.from_exception(error)
    text = "".join(written.format())
    if with_values:
        text += "".join(_values_of(each) for each in _chain(error))
    return without_secrets(text)


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _formatter(level: LogLevel, *, for_people: bool) -> logging.Formatter:
    renderer: Processor
    if for_people:
        renderer = structlog.dev.ConsoleRenderer(
            colors=True, exception_formatter=structlog.dev.plain_traceback
        )
    else:
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared_processors(),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _TracebackText(with_values=level is LogLevel.FULL),
            lambda _logger, _method, fields: redacted(fields),
            renderer,
        ],
    )


class _TracebackText:
    """Turns `exc_info` into text here, not in the renderer, so that both kinds of line have the same."""

    def __init__(self, *, with_values: bool) -> None:
        self._with_values = with_values

    def __call__(
        self, _logger: Any, _method: str, fields: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        info = fields.pop("exc_info", None)
        if info is True:
            info = sys.exc_info()
        error = info[1] if isinstance(info, tuple) else info
        if isinstance(error, BaseException):
            fields["exception"] = render_traceback(error, with_values=self._with_values)
        return fields


def _chain(error: BaseException) -> list[BaseException]:
    errors: list[BaseException] = []
    pending = [error]
    while pending:
        each = pending.pop()
        if any(each is known for known in errors):
            continue
        errors.append(each)
        pending.extend(linked for linked in (each.__cause__, each.__context__) if linked is not None)
        if isinstance(each, BaseExceptionGroup):
            pending.extend(each.exceptions)
    return errors


def _values_of(error: BaseException) -> str:
    lines = [f"Values in {type(error).__name__}:\n"]
    step: TracebackType | None = error.__traceback__
    while step is not None:
        lines.append(_frame_values(step.tb_frame, step.tb_lineno))
        step = step.tb_next
    return "".join(lines)


def _frame_values(frame: FrameType, line: int) -> str:
    code = frame.f_code
    lines = [f"  {code.co_filename}:{line} {code.co_name}\n"]
    lines.extend(f"    {name} = {_shown(name, value)}\n" for name, value in frame.f_locals.items())
    return "".join(lines)


def _shown(name: str, value: object) -> str:
    """Show a plain value; of anything else the type, since a `repr` may hold what must not be seen."""
    if _SECRET_VARIABLE.search(name):
        return HIDDEN
    if isinstance(value, Enum):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str | Path):
        text = repr(value)
        return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {str(value)[:_SHOWN_CHARACTERS]}"
    size = f" of {len(value)}" if isinstance(value, list | tuple | dict | set | frozenset | bytes) else ""
    return f"<{type(value).__name__}{size}>"


def _redacted_value(name: str, value: Any) -> Any:
    if _SECRET_FIELD.search(name):
        return HIDDEN
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {key: _redacted_value(str(key), each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted_value(name, each) for each in value]
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float):
        return value
    return without_secrets(str(value))
