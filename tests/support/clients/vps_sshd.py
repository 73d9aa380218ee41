"""OpenSSH's own sshd on a loopback port, standing in for that of a VPS.

It runs in a mount namespace of its own, in which it has the folder that it wants under /run.
"""

import getpass
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.machine.processes import wait_until

_START = 'mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec /usr/sbin/sshd -D -e -f "$1"'
_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
UseDNS no
PasswordAuthentication no
PermitRootLogin yes
MaxStartups 200
MaxSessions 200
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class VpsSshd:
    """`user` may log in with `user_key`, a private key's file."""

    port: int
    folder: Path
    user: str

    @property
    def user_key(self) -> Path:
        return self.folder / "user_key"

    @property
    def user_public_key(self) -> str:
        return public_key_of(self.user_key)

    @property
    def host_public_key(self) -> str:
        return public_key_of(self.folder / "host_key")


def make_key(path: Path) -> Path:
    """Make an ed25519 key pair; returns the private key's file."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "made by a test", "-f", str(path)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return path


def public_key_of(path: Path) -> str:
    """`type base64` of a private key's file."""
    return " ".join(path.with_name(f"{path.name}.pub").read_text().split()[:2])


@contextmanager
def vps_sshd(folder: Path) -> Iterator[VpsSshd]:
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    sshd = VpsSshd(port, folder, getpass.getuser())
    make_key(folder / "host_key")
    make_key(sshd.user_key)
    (folder / "authorized_keys").write_text(sshd.user_public_key + "\n")
    config = folder / "sshd_config"
    config.write_text(_CONFIG.format(port=port, folder=folder))
    log = folder / "sshd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _START, "sh", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: _answers(port) or process.poll() is not None, 20, "the VPS's sshd")
        assert process.poll() is None, log.read_text()
        yield sshd
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
