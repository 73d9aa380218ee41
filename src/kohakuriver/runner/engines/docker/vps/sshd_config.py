"""What a VPS's sshd is told (sshd_config(5), OpenSSH 6.7 and newer); pure.

It reads nothing that users may have changed in the image's own configuration. With keys, root comes in with
one of ours or one that the VPS's owner added. Without a password (`none`), sshd listens only on the
loopback address, which the runner reaches from inside the VPS's network and nobody else from outside.
"""

import hashlib
from collections.abc import Iterable

from kohakuriver.models.enums import SshKeyMode
from kohakuriver.runner.engines.contract.vps import VpsSetup
from kohakuriver.runner.engines.docker.inside.of_vps import SSH_FOLDER

CONFIG, HOST_KEY, AUTHORIZED_KEYS, VERSION = "sshd_config", "host_key", "authorized_keys", "version"
# sshd sets these itself for whoever comes in.
_SET_BY_SSHD = frozenset(("HOME", "HOSTNAME", "LOGNAME", "MAIL", "PWD", "SHELL", "SHLVL", "TERM", "USER"))

_COMMON = f"""\
Port 22
HostKey {SSH_FOLDER}/{HOST_KEY}
PidFile /run/kohakuriver-sshd.pid
UsePAM no
UseDNS no
PubkeyAuthentication yes
ChallengeResponseAuthentication no
AllowAgentForwarding yes
AllowTcpForwarding yes
AcceptEnv LANG LC_* COLORTERM
PrintMotd no
Subsystem sftp internal-sftp
LogLevel ERROR
LoginGraceTime 60
MaxAuthTries 20
MaxStartups 100:30:300
MaxSessions 100
ClientAliveInterval 30
ClientAliveCountMax 6
"""
_WITH_KEYS = f"""\
AuthorizedKeysFile {SSH_FOLDER}/{AUTHORIZED_KEYS} .ssh/authorized_keys
PasswordAuthentication no
PermitRootLogin prohibit-password
"""
_ONLY_FROM_INSIDE = """\
ListenAddress 127.0.0.1
PasswordAuthentication no
PermitRootLogin no
Match Address 127.0.0.1
    PasswordAuthentication yes
    PermitEmptyPasswords yes
    PermitRootLogin yes
Match Address *,!127.0.0.1
    DenyUsers *
"""


def ssh_files(setup: VpsSetup, env: Iterable[str]) -> dict[str, str]:
    """Texts of the files in the VPS's SSH folder, by name; `env`: `NAME=value`, for logins."""
    config = sshd_config(setup.ssh_key_mode, env)
    running = hashlib.sha256(f"{config}\0{setup.host_key}".encode()).hexdigest()
    return {
        CONFIG: config,
        HOST_KEY: setup.host_key.rstrip("\n") + "\n",
        AUTHORIZED_KEYS: "".join(f"{key}\n" for key in setup.authorized_keys),
        # Last, and not of the keys that come in, which sshd reads each time.
        VERSION: f"{running}\n",
    }


def sshd_config(mode: SshKeyMode, env: Iterable[str]) -> str:
    rights = _ONLY_FROM_INSIDE if mode is SshKeyMode.NONE else _WITH_KEYS
    return _COMMON + _set_env(env) + rights


def _set_env(env: Iterable[str]) -> str:
    """One line, since only the first of several counts; what cannot be quoted in it is left out."""
    pairs = [f'"{pair}"' for pair in env if _may_stand_in_line(pair)]
    return f"SetEnv {' '.join(pairs)}\n" if pairs else ""


def _may_stand_in_line(pair: str) -> bool:
    name, equals, _ = pair.partition("=")
    return bool(equals) and name not in _SET_BY_SSHD and pair.isprintable() and not set('"\\') & set(pair)
