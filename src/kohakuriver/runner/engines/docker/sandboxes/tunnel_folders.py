"""What each sandbox's tunnel client is told: a folder that only the sandbox's container sees, read-only.

`secret` (64 hex digits) is the sandbox's own: made with it, kept over restarts of the runner, and removed
with it. `runner.json` says where the runner is and what name to ask for; it is replaced when that changes. A
folder is named by what stands in a label of its sandbox, since it is there before the container is. Its
files are readable for every user, as the engine may map them; the folder above is only the runner's.
All that touches files blocks.
"""

import os
import re
import secrets
import shutil
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kohakuriver.models.names import LABEL_TUNNEL
from kohakuriver.private_files import replace_file

PLACE = "/tunnel"
"""Of the folder, in the sandbox."""
_SECRET, _RUNNER = "secret", "runner.json"
_SECRET_BYTES = 32
_KEY = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class RunnerPlace:
    """Where sandboxes reach their runner."""

    address: str
    port: int


class TunnelFolders:
    """`runner` None: there are no tunnels, and sandboxes that are made have no folder."""

    def __init__(self, state_dir: Path, runner: RunnerPlace | None) -> None:
        self._root = state_dir / "tunnels"
        self._runner = runner

    def labels(self, key: str) -> dict[str, str]:
        return {LABEL_TUNNEL: key} if self._runner is not None else {}

    def mounts(self, key: str) -> list[dict[str, Any]]:
        """The folder as an entry of a container's `Mounts`."""
        if self._runner is None:
            return []
        return [{"Type": "bind", "Source": str(self._root / key), "Target": PLACE, "ReadOnly": True}]

    def make(self, key: str) -> None:
        """Have the folder there, as a container needs it that is made."""
        if self._runner is not None:
            folder = self._root / key
            folder.mkdir(parents=True, exist_ok=True)
            self._root.chmod(0o700)
            folder.chmod(0o755)

    def write(self, key: str, name: str) -> bytes | None:
        """Bring what is in it to what holds now; return the secret."""
        if self._runner is None or not _KEY.fullmatch(key):
            return None
        self.make(key)
        folder = self._root / key
        secret = _secret_in(folder)
        if secret is None:
            secret = secrets.token_bytes(_SECRET_BYTES)
            replace_file(folder / _SECRET, secret.hex().encode(), 0o444)
        place = {"address": self._runner.address, "port": self._runner.port, "name": name}
        content = msgspec.json.encode(place)
        if _content(folder / _RUNNER) != content:
            replace_file(folder / _RUNNER, content, 0o444)
        return secret

    def remove(self, key: str) -> None:
        shutil.rmtree(self._root / key, ignore_errors=True)

    def remove_all_but(self, kept: Set[str]) -> None:
        if self._root.is_dir():
            for name in os.listdir(self._root):
                if name not in kept:
                    self.remove(name)


def _secret_in(folder: Path) -> bytes | None:
    """None where there is none, or what a crash of the machine left of it."""
    try:
        secret = bytes.fromhex((_content(folder / _SECRET) or b"").decode("ascii"))
    except ValueError:
        return None
    return secret if len(secret) == _SECRET_BYTES else None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
