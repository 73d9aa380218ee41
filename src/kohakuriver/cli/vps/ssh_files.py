"""What stock SSH clients need to know of VPSs: options, host keys, a configuration to include.

What the host tells goes into these texts only in forms that are known, so that no name or key can bring a
line of its own with it. Host keys stand under names of ours (`HostKeyAlias`), never under a VPS's name or
address, so they vouch for nothing else.
"""

import os
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kohakuriver.models.enums import SshKeyMode
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.names import check_vps_name
from kohakuriver.models.transitions import FINAL, RESTARTABLE
from kohakuriver.private_files import replace_file

if TYPE_CHECKING:
    from kohakuriver.client.vps_records import VpsRecord

GATEWAY_ALIAS = "kohakuriver-gateway"
_PUBLIC_KEY = re.compile(r"[a-z0-9@.-]{1,64} [A-Za-z0-9+/]{16,2000}={0,2}")
_USUAL_IDENTITIES = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_TASK_ID = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class GatewayPlace:
    """Where the gateway is, as the command line reaches it; `host_key` is None if the host told none."""

    host: str
    port: int
    host_key: str | None

    @property
    def name(self) -> str:
        """What its lines in the file of host keys are known by."""
        return f"{self.host}:{self.port}"

    @property
    def key_alias(self) -> str:
        return f"{GATEWAY_ALIAS}-{self.host.replace(':', '-')}-{self.port}"


def folder() -> Path:
    """Made if it is not there, closed to others."""
    path = Path(os.path.expanduser("~")) / ".kohakuriver"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def known_hosts_file() -> Path:
    return folder() / "known_hosts"


def checked_key(text: str | None) -> str | None:
    """A public key as `type base64`, None for none; raises InvalidInput for anything else."""
    if not text:
        return None
    key = " ".join(text.split()[:2])
    if _PUBLIC_KEY.fullmatch(key) is None:
        raise InvalidInput("the host sent something as a public key that is none; is it of this version?")
    return key


def checked_id(vps: "VpsRecord") -> str:
    if _TASK_ID.fullmatch(vps.task_id) is None:
        raise InvalidInput("the host sent something as a VPS's id that is none; is it of this version?")
    return vps.task_id


def remember_hosts(gateway: GatewayPlace, records: "Iterable[VpsRecord]", *, all_of_them: bool) -> Path:
    """Write the host keys of the gateway and of its VPSs down; returns the file.

    Lines of other gateways stay; those of this one stay as well, unless `records` are all that it has.
    """
    path = known_hosts_file()
    keys = {_vps_alias(vps): checked_key(vps.host_public_key) for vps in records}
    keys[gateway.key_alias] = gateway.host_key
    kept = [line for line in _lines(path) if not _is_replaced(line, gateway, keys, all_of_them)]
    added = [f"{alias} {key} {gateway.name}" for alias, key in keys.items() if key]
    write_whole(path, "".join(f"{line}\n" for line in (*kept, *added)))
    return path


def _is_replaced(line: str, gateway: GatewayPlace, keys: dict[str, str | None], all_of_them: bool) -> bool:
    parts = line.split()
    if len(parts) != 4 or parts[3] != gateway.name:
        return False
    return all_of_them or parts[0] in keys


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once, so that a client that reads it sees the old one or the new one."""
    try:
        replace_file(path, text.encode(), draft=path.with_name(f".{path.name}.{os.getpid()}"))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from error


def ssh_options(
    vps: "VpsRecord", user: str, proxy_command: list[str], identity: Path | None
) -> list[tuple[str, str]]:
    """Options of ssh_config(5) for a connection through `proxy_command`."""
    command = shlex.join(proxy_command).replace("%", "%%")
    return [*_common(vps, user), ("ProxyCommand", command), *_identity(identity)]


def config_text(
    gateway: GatewayPlace,
    records: "list[VpsRecord]",
    proxy_command: list[str],
    identity_of: "Callable[[VpsRecord], Path | None]",
) -> str:
    """The configuration of all VPSs that have SSH and are not over for good.

    `proxy_command` is to be followed by a VPS's id. `identity_of`: the private key's file, None for those
    that the client tries by itself.
    """
    reachable = [vps for vps in records if _is_reachable(vps)]
    identities = {vps.task_id: identity_of(vps) for vps in reachable}
    blocks = [_gateway_block(gateway, identities.values())]
    taken: set[str] = set()
    for vps in reachable:
        names, identity = _names(vps, taken), identities[vps.task_id]
        blocks.append(_vps_block(vps, names, proxy_command, identity))
    head = "# Written by `kohakuriver ssh config`, which writes it anew: changes here do not last."
    return "\n\n".join((head, *blocks)) + "\n"


def _is_reachable(vps: "VpsRecord") -> bool:
    is_over = vps.status in FINAL and vps.status not in RESTARTABLE
    return not is_over and vps.ssh_key_mode is not SshKeyMode.DISABLED


def _gateway_block(gateway: GatewayPlace, identities: "Iterable[Path | None]") -> str:
    """The gateway takes the key of any VPS. A client that is given one tries no other by itself."""
    named = dict.fromkeys(identities)
    usual = _USUAL_IDENTITIES if None in named and len(named) > 1 else ()
    options = [
        ("HostName", gateway.host),
        ("Port", str(gateway.port)),
        ("User", "kohakuriver"),
        *_vouched(gateway.key_alias, gateway.host_key is not None),
    ]
    files = [option for identity in named for option in _identity(identity)]
    return _block([GATEWAY_ALIAS], [*options, *files, *(("IdentityFile", name) for name in usual)])


def _vps_block(vps: "VpsRecord", names: list[str], proxy_command: list[str], identity: Path | None) -> str:
    """A VPS that takes keys is reached only with them, one without with the command line's token."""
    options = [("HostName", _vps_host(vps))]
    if vps.ssh_key_mode is SshKeyMode.NONE:
        options += ssh_options(vps, "root", [*proxy_command, checked_id(vps)], None)
    else:
        options += [*_common(vps, "root"), ("ProxyJump", GATEWAY_ALIAS), *_identity(identity)]
    return _block(names, options)


def _names(vps: "VpsRecord", taken: set[str]) -> list[str]:
    names = [_vps_host(vps)]
    if vps.name is not None and vps.name not in taken:
        taken.add(vps.name)
        try:
            names.insert(0, check_vps_name(vps.name))
        except InvalidInput:
            return names  # of a host with other rules; its id serves
    return names


def _common(vps: "VpsRecord", user: str) -> list[tuple[str, str]]:
    return [
        ("User", user),
        *_vouched(_vps_alias(vps), checked_key(vps.host_public_key) is not None),
    ]


def _vouched(alias: str, is_known: bool) -> list[tuple[str, str]]:
    return [
        ("HostKeyAlias", alias),
        ("UserKnownHostsFile", _quoted(known_hosts_file())),
        ("StrictHostKeyChecking", "yes" if is_known else "accept-new"),
        ("CheckHostIP", "no"),
        ("UpdateHostKeys", "no"),
    ]


def _identity(identity: Path | None) -> list[tuple[str, str]]:
    return [("IdentityFile", _quoted(identity))] if identity else []


def _block(names: list[str], options: list[tuple[str, str]]) -> str:
    return "\n".join((f"Host {' '.join(names)}", *(f"    {name} {value}" for name, value in options)))


def _vps_host(vps: "VpsRecord") -> str:
    return f"vps-{checked_id(vps)}"


def _vps_alias(vps: "VpsRecord") -> str:
    return f"kohakuriver-vps-{checked_id(vps)}"


def _quoted(path: Path) -> str:
    """A path as ssh_config(5) reads one, which expands what stands behind `%`."""
    text = str(path).replace("%", "%%")
    if any(char in text for char in '"\n'):
        raise InvalidInput(f"SSH clients cannot be told a path with quotes or line breaks: {path}")
    return f'"{text}"'
