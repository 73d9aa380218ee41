"""Types of options and arguments: read and checked before the host is asked, with the rules of `models`."""

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from kohakuriver.models.errors import InvalidInput

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGO = re.compile(r"(?:[0-9]{1,9}[smhdw])+", re.ASCII)
_PART = re.compile(r"([0-9]+)([smhdw])", re.ASCII)
_WITHOUT_EFFECT = frozenset(("consistent", "cached", "delegated"))
"""They are for other systems than Linux, and Docker passes over them here too."""


def read_mount(text: str) -> str:
    """Read `PATH:PATH[:OPTION,…]`; a path from here (`./data`) is made whole. Return the form of requests."""
    from kohakuriver.models.spec.mounts import parse_mount

    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise InvalidInput(f"mount {text[:200]!r} is not of the form PATH-ON-THE-NODE:PATH[:ro]")
    options = [option for option in "".join(parts[2:]).split(",") if option not in _WITHOUT_EFFECT]
    options = [option for option in options if option]
    unknown = [option for option in options if option not in ("ro", "rw")]
    if unknown or len(set(options)) > 1:
        raise InvalidInput(f"mount {text[:200]!r}: options are ro or rw, not {','.join(options)[:60]!r}")
    source = parts[0]
    if source.startswith(("./", "../")) or source in (".", ".."):
        source = os.path.abspath(source)
    if not source.startswith("/"):
        raise InvalidInput(
            f"mount {text[:200]!r}: {source[:100]!r} would be a volume of Docker's, which nodes have not; "
            "write the absolute path of a folder of the node"
        )
    return str(parse_mount(":".join((source, parts[1], *options))))


def read_moment(text: str, now: datetime) -> datetime:
    """Return the moment that is meant: so long before now (`10m`, `1h30m`), or a time as ISO 8601 writes it.

    One that names no zone is of the zone of this machine. Raises InvalidInput.
    """
    text = text.strip()
    try:
        if _AGO.fullmatch(text):
            seconds = sum(int(count) * _SECONDS[unit] for count, unit in _PART.findall(text))
            return now - timedelta(seconds=seconds)
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"{text[:60]!r} is no time; write how long ago (10m, 1h30m, 2d) or when "
            "(2026-11-29, 2026-11-29T14:30, 2026-11-29T13:30:00Z)"
        ) from error


if TYPE_CHECKING:
    from datetime import datetime

    from kohakuriver.cli.tasks.environment_words import Variable
    from kohakuriver.models.spec.amounts import Cores
    from kohakuriver.models.spec.targets import Target


class Checked(click.ParamType[Any]):
    """A value that `read` turns into what the command gets; its InvalidInput is a wrong use."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except InvalidInput as error:
            self.fail(str(error), param, ctx)


def _read_size(text: str) -> int:
    from kohakuriver.cli.console.sizes import parse_size

    return parse_size(text)


def _read_memory(text: str) -> int:
    from kohakuriver.cli.console.sizes import parse_size
    from kohakuriver.models.spec.amounts import LEAST_MEMORY_BYTES

    size = parse_size(text)
    if 0 < size < LEAST_MEMORY_BYTES:
        meant = f"; did you mean {text.strip()}M?" if text.strip().isdigit() else ""
        raise InvalidInput(f"{size} bytes of memory are less than a container can have (6M){meant}")
    return size


def _read_cores(text: str) -> "Cores":
    from kohakuriver.models.spec.amounts import check_cores

    try:
        amount = int(text) if text.isdigit() else float(text)
    except ValueError as error:
        raise InvalidInput(f"{text[:60]!r} is no number of cores; write such as 2 or 0.5") from error
    return check_cores(amount)


def _read_target(text: str) -> str:
    from kohakuriver.models.spec.targets import parse_target

    return str(parse_target(text))


def _read_mount(text: str) -> str:
    from kohakuriver.cli.params import read_mount

    return read_mount(text)


def _read_env_pair(text: str) -> "Variable":
    from kohakuriver.cli.tasks.environment_words import read_variable

    return read_variable(text)


def _read_env_file(path: str) -> "tuple[Variable, ...]":
    from kohakuriver.cli.tasks.environment_words import read_file

    return read_file(path)


def _read_task_name(text: str) -> str:
    from kohakuriver.models.names import check_task_name

    return check_task_name(text)


def _read_vps_name(text: str) -> str:
    from kohakuriver.models.names import check_vps_name

    return check_vps_name(text)


def _read_one_target(text: str) -> "Target":
    from kohakuriver.models.spec.targets import parse_target

    return parse_target(text)


def _read_environment(text: str) -> str:
    from kohakuriver.models.names import check_environment_name

    return check_environment_name(text)


def _read_image(text: str) -> str:
    from kohakuriver.models.names import check_image_reference

    return check_image_reference(text)


def _read_capability(text: str) -> str:
    from kohakuriver.models.spec.capabilities import check_capabilities

    return check_capabilities([text])[0]


def _read_ulimit(text: str) -> str:
    from kohakuriver.models.spec.container_options import parse_ulimit

    return str(parse_ulimit(text))


def _read_device(text: str) -> str:
    from kohakuriver.models.spec.container_options import parse_device

    return str(parse_device(text))


def _read_user(text: str) -> str:
    from kohakuriver.models.spec.container_options import check_user

    return check_user(text)


def _read_hostname(text: str) -> str:
    from kohakuriver.models.spec.container_options import check_hostname

    return check_hostname(text)


def _read_moment(text: str) -> "datetime":
    from datetime import UTC, datetime

    from kohakuriver.cli.params import read_moment

    return read_moment(text, datetime.now(UTC))


def _read_signal(text: str) -> str:
    from kohakuriver.models.spec.signals import check_signal

    return check_signal(text)


MEMORY = Checked("size", _read_memory)
SIZE = Checked("size", _read_size)
CORES = Checked("cores", _read_cores)
TARGET = Checked("target", _read_target)
MOUNT = Checked("mount", _read_mount)
ENV_PAIR = Checked("name=value", _read_env_pair)
ENV_FILE = Checked("file", _read_env_file)
TASK_NAME = Checked("name", _read_task_name)
VPS_NAME = Checked("name", _read_vps_name)
ONE_TARGET = Checked("target", _read_one_target)
ENVIRONMENT = Checked("environment", _read_environment)
IMAGE = Checked("image", _read_image)
CAPABILITY = Checked("capability", _read_capability)
ULIMIT = Checked("limit", _read_ulimit)
DEVICE = Checked("device", _read_device)
USER = Checked("user", _read_user)
HOSTNAME = Checked("hostname", _read_hostname)
MOMENT = Checked("time", _read_moment)
SIGNAL = Checked("signal", _read_signal)
