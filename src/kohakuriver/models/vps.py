"""What makes a task a VPS: what was asked for, and what changes beside its state."""

from dataclasses import dataclass, field

from kohakuriver.models.enums import SshKeyMode, VpsBackend

FROM_NEWEST = ""
FROM_IMAGE = "image"
"""`restore` of a VPS: its newest snapshot if there is one, its image, or a snapshot's unix time."""


@dataclass(frozen=True, slots=True)
class VpsSpec:
    """Never changes. `host_key`: the private key (OpenSSH text) of the VPS's own sshd, made by the host.

    `authorized_keys` are public keys (`type base64 [comment]`) without options; none with the modes
    `disabled` and `none`.
    """

    ssh_key_mode: SshKeyMode = SshKeyMode.DISABLED
    authorized_keys: tuple[str, ...] = ()
    host_key: str = field(default="", repr=False)
    host_public_key: str = ""
    backend: VpsBackend = VpsBackend.DOCKER


@dataclass(frozen=True, slots=True)
class VpsState:
    """What changes.

    `notice`: what went wrong without ending it, for its owner. `restart_requested`: a stop is to be followed
    by a start. `restore`: what the next start begins from. `deleting`: its snapshots are being deleted, and
    its record after them.
    """

    notice: str | None = None
    restart_requested: bool = False
    restore: str = FROM_NEWEST
    deleting: bool = False
