"""Which program is the client of this node's sandboxes: the one that is set, or the first that can be one.

It has to be static, since a sandbox has no other file, and to say of itself that it is of this machine and
speaks our protocol. It is asked that without rights.
"""

import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

import kohakuriver
from kohakuriver.models.errors import InvalidInput
from kohakuriver.runner.static_program import is_static_elf
from kohakuriver.wire.tunnel.frames import SUBPROTOCOL

SWITCHED_OFF = "this node has no tunnels (TUNNEL_ENABLED = False)"
_NAME = "tunnel-client"
_NOBODY = 65534
_ASK_SECONDS = 10.0
_log = structlog.get_logger(__name__)


class UnfitClient(InvalidInput):
    """The program cannot be the client of a sandbox here."""


@dataclass(frozen=True, slots=True)
class TunnelClient:
    """`path` None: there is none, for the reason `why_none`; `is_wanted`: it should be there all the same."""

    path: Path | None
    why_none: str = ""
    is_wanted: bool = False


class _Version(msgspec.Struct):
    protocol: str
    architecture: str


def find_client(enabled: bool, chosen: str, shared_dir: Path) -> TunnelClient:
    """`enabled` and `chosen` are TUNNEL_ENABLED and TUNNEL_CLIENT_PATH; UnfitClient where that is none."""
    if chosen:
        check_client(Path(chosen))
    if not enabled:
        return TunnelClient(None, SWITCHED_OFF)
    if chosen:
        return TunnelClient(Path(chosen))
    return _first_good(_places(shared_dir))


def _places(shared_dir: Path) -> list[Path]:
    shipped = Path(kohakuriver.__file__).parent / "tunnel_clients" / f"{_NAME}-{platform.machine()}"
    folders = (Path.home() / ".kohakuriver", Path("/usr/local/bin"), Path("/usr/bin"), shared_dir / "bin")
    return [shipped, *(folder / _NAME for folder in folders)]


def _first_good(places: Iterable[Path]) -> TunnelClient:
    for path in places:
        try:
            check_client(path)
        except UnfitClient as error:
            if path.exists():
                _log.warning("tunnel_client_unfit", reason=str(error))
        else:
            return TunnelClient(path)
    return TunnelClient(
        None,
        f"this node has no tunnel client for {platform.machine()}, so ports of its workloads cannot be "
        "forwarded; install one, or name it in TUNNEL_CLIENT_PATH",
        is_wanted=True,
    )


def check_client(path: Path) -> None:
    """Raise UnfitClient with a sentence that says what is wrong with it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnfitClient(f"the tunnel client {path} cannot be read: {error.strerror}") from error
    if not is_static_elf(content):
        raise UnfitClient(f"the tunnel client {path} is no static program, and in a sandbox is no other file")
    version = _version_of(path, content)
    if version.architecture != platform.machine():
        raise UnfitClient(
            f"the tunnel client {path} is of {version.architecture}; this machine is {platform.machine()}"
        )
    if version.protocol != SUBPROTOCOL:
        raise UnfitClient(
            f"the tunnel client {path} speaks {version.protocol}, and this runner speaks {SUBPROTOCOL}"
        )


def _version_of(path: Path, content: bytes) -> _Version:
    try:
        return msgspec.json.decode(_said(content), type=_Version)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
        raise UnfitClient(
            f"the tunnel client {path} does not run on this machine, or is none: "
            f"it does not answer to --version as one ({error})"
        ) from error


def _said(content: bytes) -> bytes:
    """What it answers to `--version`, run from a copy, since a user without rights may not reach the file."""
    nobody = None if os.geteuid() else _NOBODY
    descriptor = os.memfd_create(_NAME, 0)
    try:
        with open(descriptor, "wb", closefd=False) as copy:
            copy.write(content)
        # What is open for writing cannot be run.
        reading = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
    finally:
        os.close(descriptor)
    try:
        return subprocess.run(
            [_NAME, "--version"],
            executable=f"/proc/self/fd/{reading}",
            pass_fds=(reading,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            timeout=_ASK_SECONDS,
            check=True,
            user=nobody,
            group=nobody,
            extra_groups=None if nobody is None else [],
        ).stdout
    finally:
        os.close(reading)
