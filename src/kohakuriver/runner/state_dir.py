# shape: what keeps a second runner off a machine is found by its name
"""The runner's private folder, `~/.kohakuriver/runner/<node>`: identity, host pin, journal. One owner."""

import fcntl
import os
from pathlib import Path

from kohakuriver.models.errors import Conflict, InvalidInput


class StateDir:
    """Made, checked and locked by `open`; the lock lasts until `close` or the end of the process."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> "StateDir":
        """Raises Conflict if another runner uses the folder, InvalidInput if it cannot be private."""
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = path.stat()
            if status.st_uid != os.geteuid():
                raise InvalidInput(f"{path} belongs to another user; a runner needs it for itself")
            path.chmod(0o700)
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidInput(f"{path} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise Conflict(f"another runner uses {path}; a machine runs one, end that first") from error
        return cls(path, lock)

    def close(self) -> None:
        os.close(self._lock)
