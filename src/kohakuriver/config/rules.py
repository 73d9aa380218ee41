"""What values of settings must be. A rule may look at the machine (files, users), and never changes it."""

import math
import os
import re
from collections.abc import Callable

from kohakuriver.config import addresses
from kohakuriver.config.settings import Rule
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.names import is_fingerprint

_MOST = (1 << 31) - 1
_DOCKER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,127}")
_DOCKERS_OWN_NETWORKS = ("bridge", "default", "host", "none")
_BRIDGE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_DISK_SIZE = re.compile(r"[1-9][0-9]{0,8}[KMGT]")
_JOIN_TOKEN = re.compile(r"krj1(?:\.[A-Za-z0-9+/:_=-]{1,200}){3}")


def whole(lowest: int, highest: int = _MOST) -> Rule:
    """A number within bounds. The upper bound keeps times and sizes within what the system can hold."""
    open_ended = highest == _MOST
    expected = f"{lowest} or more" if open_ended else f"from {lowest} to {highest}"

    def problem(value: int) -> str | None:
        if value > highest:
            return f"more than {highest} cannot be meant" if open_ended else ""
        return None if value >= lowest else ""

    return Rule(expected, problem)


def _matches(expected: str, test: Callable[[str], bool]) -> Rule:
    return Rule(expected, lambda value: None if test(value) else "")


def _parses(expected: str, parse: Callable[[str], object], *, empty: bool = False) -> Rule:
    """What a parser takes; the parser's own sentence is the reason."""

    def problem(value: str) -> str | None:
        if empty and not value:
            return None
        try:
            parse(value)
        except (InvalidInput, ValueError) as error:
            return str(error)
        return None

    return Rule(expected, problem)


def _fraction_problem(value: float) -> str | None:
    return None if math.isfinite(value) and 0 < value <= 1 else ""


def _share_problem(value: float) -> str | None:
    return None if math.isfinite(value) and 0 <= value <= 1 else ""


# Paths


def path_problem(path: str) -> str | None:
    """What keeps a text from being an absolute path."""
    if not path.startswith("/"):
        return "it is not absolute"
    if len(path) > 4000:
        return "it is too long"
    if not path.isprintable():
        return "it holds a control character"
    return None


def _mountable_problem(path: str) -> str | None:
    # Workloads get this directory as a mount, and both characters have a meaning of their own there.
    if "," in path or ":" in path:
        return "it holds a comma or a colon"
    return path_problem(path)


def _nearest_existing(path: str) -> str:
    while not os.path.lexists(path):
        path = os.path.dirname(path.rstrip("/")) or "/"
    return path


def _may_write(path: str, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _room_problem(directory: str) -> str | None:
    """What keeps a directory from being written to, or from being made."""
    nearest = _nearest_existing(directory)
    if not os.path.isdir(nearest):
        return f"{nearest} is not a directory"
    if not _may_write(nearest, os.W_OK | os.X_OK):
        return f"{nearest} is not writable"
    return None


def writable_file_problem(path: str) -> str | None:
    """What keeps a file from being written, or made with the directories above it."""
    bad = path_problem(path)
    if bad is not None:
        return bad
    if path.endswith("/") or os.path.isdir(path):
        return "it is a directory"
    if not os.path.lexists(path):
        return _room_problem(os.path.dirname(path))
    if not os.path.isfile(path):
        return "it is not a regular file"
    return None if _may_write(path, os.W_OK) else "it is not writable"


def _writable_directory_problem(path: str) -> str | None:
    return _mountable_problem(path) or _room_problem(path)


def _executable_problem(path: str) -> str | None:
    bad = path_problem(path)
    if bad is not None:
        return bad
    if not os.path.isfile(path):
        return "there is no such file"
    return None if os.access(path, os.X_OK) else "it is not executable"


def _or_empty(expected: str, problem: Callable[[str], str | None]) -> Rule:
    return Rule(f'"" or {expected}', lambda value: problem(value) if value else None)


# The machine


def _user_problem(name: str) -> str | None:
    import pwd

    try:
        pwd.getpwnam(name)
    except (KeyError, ValueError):
        return "there is no such user"
    return None


def _egress_problem(entries: tuple[str, ...]) -> str | None:
    from kohakuriver.models.network.egress import check_entry

    for text in entries:
        try:
            check_entry(text)
        except InvalidInput as error:
            return str(error)
    return None


def _mounts_problem(mounts: tuple[str, ...]) -> str | None:
    from kohakuriver.models.spec.mounts import parse_mount

    seen: set[str] = set()
    for text in mounts:
        try:
            mount = parse_mount(text)
        except InvalidInput as error:
            return str(error)
        if not os.path.exists(mount.source):
            return f"{mount.source} does not exist"
        if mount.destination == "/local_temp":
            return "/local_temp is taken by LOCAL_TEMP_DIR"
        if mount.destination in seen:
            return f"{mount.destination} is there twice"
        seen.add(mount.destination)
    return None


# Networks and names


def _subnet_rule(longest_prefix: int) -> Rule:
    def parse(text: str) -> None:
        from ipaddress import IPv4Network

        if "/" not in text:
            raise ValueError("the prefix length is missing")
        network = IPv4Network(text)
        if not 4 <= network.prefixlen <= longest_prefix:
            raise ValueError(f"the prefix length must be from 4 to {longest_prefix}")
        if network.is_multicast or network.is_loopback or network.is_reserved or network.is_unspecified:
            raise ValueError("it is no range that workloads can have addresses in")

    return _parses("an IPv4 network such as 10.200.0.0/24", parse)


def _parse_ipv4(text: str) -> None:
    from ipaddress import IPv4Address

    IPv4Address(text)


def _docker_network_problem(name: str) -> str | None:
    if name in _DOCKERS_OWN_NETWORKS:
        return "Docker keeps this name for itself"
    return None if _DOCKER_NAME.fullmatch(name) else ""


def _parse_overlay(text: str) -> None:
    from kohakuriver.models.network.overlay import parse_overlay_subnet

    parse_overlay_subnet(text)


def _parse_image(text: str) -> None:
    from kohakuriver.models.names import check_image_reference

    check_image_reference(text)


def _images_problem(references: tuple[str, ...]) -> str | None:
    for reference in references:
        try:
            _parse_image(reference)
        except InvalidInput as error:
            return str(error)
    return None


def _parse_environment(text: str) -> None:
    from kohakuriver.models.names import check_environment_name

    check_environment_name(text)


def _database_problem(url: str) -> str | None:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        named = bool(parts.path.strip("/")) and (parts.port is None or parts.port > 0)
    except ValueError:
        return "its host or port cannot be read"
    if parts.scheme not in ("postgresql", "postgresql+psycopg"):
        return "it does not begin with postgresql://"
    if not url.isprintable() or " " in url:
        return "it holds a space or control character"
    return None if named else "it names no database"


def _secret_problem(text: str) -> str | None:
    # It travels in a header, where nothing else would arrive whole.
    if len(text) > 1024:
        return "it is longer than 1024 characters"
    return None if all(33 <= ord(char) <= 126 for char in text) else "it holds something else"


ANY_BOOL = Rule("True or False", lambda _: None)
ANY_LOG_LEVEL = Rule('LogLevel.FULL, DEBUG, INFO or WARNING, or its name as "info"', lambda _: None)
PORT = whole(1, 65535)
SECONDS = whole(1)
DAYS = whole(0, 36_500)  # a hundred years; 0 is for ever
HOURS = whole(1, 876_000)  # a hundred years; sums of dates stay within what a date can be
FRACTION = Rule("above 0 and at most 1", _fraction_problem)
FRACTION_OR_ZERO = Rule("from 0 to 1", _share_problem)

IP_ADDRESS = _matches("an IP address", addresses.is_ip)
HOST_OR_IP = _matches("a host name or an IP address", addresses.is_host)
HOST_OR_URL = _parses("a host name, an IP address or http://host:port", addresses.parse_host_address)

ABSOLUTE = Rule("an absolute path", path_problem)
ABSOLUTE_MOUNTABLE = Rule("an absolute path", _mountable_problem)
ABSOLUTE_OR_EMPTY = _or_empty("an absolute path", path_problem)
WRITABLE_DIRECTORY = Rule("the absolute path of a writable directory", _writable_directory_problem)
WRITABLE_FILE_OR_EMPTY = _or_empty("the absolute path of a writable file", writable_file_problem)
EXECUTABLE_OR_EMPTY = _or_empty("the absolute path of an executable file", _executable_problem)

USER_OR_EMPTY = _or_empty("the name of a user of this machine", _user_problem)
MOUNTS = Rule("each host:container[:ro], absolute, the host's path existing", _mounts_problem)

EGRESS_PLACES = Rule(
    'each "metadata", "control", or an address or network, with :port or without', _egress_problem
)

DOCKER_SUBNET = _subnet_rule(29)
VM_SUBNET = _subnet_rule(28)  # addresses of VMs begin at .10
IPV4_ADDRESS = _parses("an IPv4 address within the subnet", _parse_ipv4)
DOCKER_NETWORK = Rule(
    "2 to 128 of letters, digits, '_', '.' and '-', the first a letter or digit", _docker_network_problem
)
BRIDGE_NAME = _matches(
    "1 to 15 of letters, digits, '_', '.' and '-', the first not '.' or '-'",
    lambda name: _BRIDGE_NAME.fullmatch(name) is not None,
)
DISK_SIZE = _matches(
    "a number and K, M, G or T, such as 500G", lambda size: _DISK_SIZE.fullmatch(size) is not None
)
OVERLAY_SUBNET = _parses("BASE/NETWORK_BITS/NODE_BITS/SUBNET_BITS whose bits add up to 32", _parse_overlay)
VXLAN_ID = whole(1, 16_777_215)
MTU = whole(576, 9000)

IMAGE = _parses("an image reference such as python:3.12-alpine", _parse_image)
IMAGES = Rule("each an image reference such as python:3.12-alpine", _images_problem)
ENVIRONMENT = _parses("the name of an environment", _parse_environment)
DATABASE_URL_OR_EMPTY = _or_empty("postgresql://user:password@host/database", _database_problem)
SECRET_OR_EMPTY = _or_empty("visible ASCII characters", _secret_problem)
FINGERPRINT_OR_EMPTY = _or_empty(
    "the fingerprint of the host's key (SHA256:…)", lambda text: None if is_fingerprint(text) else ""
)
JOIN_TOKEN_OR_EMPTY = _or_empty(
    "a join token as the host made it (krj1.…)",
    lambda token: None if _JOIN_TOKEN.fullmatch(token) else "",
)
