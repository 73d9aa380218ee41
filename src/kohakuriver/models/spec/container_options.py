"""What a workload may ask of its container beside resources and mounts: read once and checked for host and
runner alike. Written as Docker's command line writes it.
"""

import re
from dataclasses import dataclass, replace

from kohakuriver.models.errors import InvalidInput

MAX_SHM_BYTES = 1 << 50
MAX_ULIMITS = 20
MAX_DEVICES = 16
MAX_DEVICE_LENGTH = 255

IPC_MODES = ("private", "none", "host")
UNLIMITED = -1
_LIMITS = frozenset(
    (
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    )
)
_LIMITS_BEFORE_OTHERS = frozenset(("nice", "rtprio"))
"""With these a workload goes before all others on its node."""
_MOST_FILES = 1 << 20
"""Kernels take no more by themselves (`fs.nr_open`)."""
_LARGEST = (1 << 63) - 1
_LIMIT = re.compile(
    r"(?P<name>[a-z]{1,20})=(?P<soft>-1|[0-9]{1,19}|unlimited)(?::(?P<hard>-1|[0-9]{1,19}|unlimited))?"
)
_DEVICE = re.compile(r"/dev(?:/[A-Za-z0-9_.+@-]+)+")
_RIGHTS = re.compile(r"(?=.{1,3}\Z)r?w?m?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,31})?")
_LARGEST_ID = (1 << 31) - 1
_HOSTNAME = re.compile(r"(?=.{1,63}\Z)[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class ContainerOptions:
    """`shm_size_bytes` 0, and texts that are empty: the node's default. Make it with `checked_options`."""

    shm_size_bytes: int = 0
    ulimits: tuple[str, ...] = ()
    """`name=soft:hard`, both numbers; -1 is no limit."""
    ipc: str = ""
    devices: tuple[str, ...] = ()
    """`path on the node:path in the container:rights`, rights some of r, w and m."""
    user: str = ""
    hostname: str = ""

    @property
    def ways_to_the_node(self) -> tuple[str, ...]:
        """Say by what it reaches the node itself, or its other workloads; empty if it does not."""
        before = [text for text in self.ulimits if text.partition("=")[0] in _LIMITS_BEFORE_OTHERS]
        return (
            *((f"devices {' '.join(self.devices)}",) if self.devices else ()),
            *(("the node's IPC",) if self.ipc == "host" else ()),
            *((f"limits {' '.join(before)}",) if before else ()),
        )


@dataclass(frozen=True, slots=True)
class Ulimit:
    name: str
    soft: int
    hard: int

    def __str__(self) -> str:
        return f"{self.name}={self.soft}:{self.hard}"


@dataclass(frozen=True, slots=True)
class Device:
    source: str
    destination: str
    rights: str

    def __str__(self) -> str:
        return f"{self.source}:{self.destination}:{self.rights}"


def checked_options(options: ContainerOptions) -> ContainerOptions:
    """Return them in the one form that the class has; raises InvalidInput with the field that is wrong."""
    if not 0 <= options.shm_size_bytes <= MAX_SHM_BYTES:
        raise InvalidInput("that is no size for /dev/shm", field="shm_size_bytes")
    if options.ipc not in ("", *IPC_MODES):
        raise InvalidInput(
            f"{options.ipc[:40]!r} is no IPC mode; there are {', '.join(IPC_MODES)}", field="ipc"
        )
    return replace(
        options,
        ulimits=_ulimits(options.ulimits),
        devices=_devices(options.devices),
        user=options.user and check_user(options.user),
        hostname=options.hostname and check_hostname(options.hostname),
    )


def _ulimits(texts: tuple[str, ...]) -> tuple[str, ...]:
    if len(texts) > MAX_ULIMITS:
        raise InvalidInput(f"there are {MAX_ULIMITS} limits at most", field="ulimits")
    read = {limit.name: limit for limit in map(parse_ulimit, texts)}
    if len(read) != len(texts):
        raise InvalidInput("a limit is named twice", field="ulimits")
    return tuple(str(read[name]) for name in sorted(read))


def parse_ulimit(text: str) -> Ulimit:
    """Read `name=soft[:hard]`, a number or `unlimited` each."""
    match = _LIMIT.fullmatch(text)
    if match is None or match["name"] not in _LIMITS:
        raise InvalidInput(
            f"{text[:60]!r} is no limit; write NAME=SOFT[:HARD], such as nofile=4096 or memlock=-1, with a "
            f"name of {', '.join(sorted(_LIMITS))}",
            field="ulimits",
        )
    soft = _amount(match["soft"])
    hard = soft if match["hard"] is None else _amount(match["hard"])
    if hard != UNLIMITED and not UNLIMITED < soft <= hard:
        raise InvalidInput(f"limit {text!r}: the first number is above the second", field="ulimits")
    if match["name"] == "nofile" and not UNLIMITED < hard <= _MOST_FILES:
        raise InvalidInput(f"limit {text!r}: nofile goes up to {_MOST_FILES}", field="ulimits")
    return Ulimit(match["name"], soft, hard)


def _amount(text: str) -> int:
    number = UNLIMITED if text == "unlimited" else int(text)
    if number > _LARGEST:
        raise InvalidInput(f"{text!r} is too large for a limit; -1 is none", field="ulimits")
    return number


def _devices(texts: tuple[str, ...]) -> tuple[str, ...]:
    if len(texts) > MAX_DEVICES:
        raise InvalidInput(f"there are {MAX_DEVICES} devices at most", field="devices")
    read = [parse_device(text) for text in texts]
    if len({device.destination for device in read}) != len(read):
        raise InvalidInput("two devices have the same path in the container", field="devices")
    return tuple(map(str, read))


def parse_device(text: str) -> Device:
    """Read `/dev/x[:/dev/y][:rwm]`."""
    source, *others = text.split(":") if len(text) <= MAX_DEVICE_LENGTH else [""]
    rights = others.pop() if others and _RIGHTS.fullmatch(others[-1]) else "rwm"
    destination = others.pop() if others else source
    if others or not all(map(_is_device_path, (source, destination))):
        raise InvalidInput(
            f"{text[:60]!r} is no device; write /dev/NAME[:/dev/NAME IN THE CONTAINER][:rwm]", field="devices"
        )
    return Device(source, destination, rights)


def _is_device_path(path: str) -> bool:
    return _DEVICE.fullmatch(path) is not None and not {".", ".."} & set(path.split("/"))


def check_user(text: str) -> str:
    parts = text.split(":")
    if _USER.fullmatch(text) is None or any(part.isdigit() and int(part) > _LARGEST_ID for part in parts):
        raise InvalidInput(
            f"{text[:60]!r} is no user; write USER[:GROUP], names of the image or numbers", field="user"
        )
    return text


def check_hostname(text: str) -> str:
    if _HOSTNAME.fullmatch(text) is None or ".." in text:
        raise InvalidInput(
            f"{text[:60]!r} is no host name; use 1 to 63 letters, digits, '-' and '.'", field="hostname"
        )
    return text
