"""Daemons that `up` starts and `down` ends: detached from the terminal, known by pid and start time.

A pid by itself is never trusted: the file also holds the start time that the kernel keeps and the boot's id,
so that a process which got an old number later is not taken for ours, and never killed.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.models.errors import Unavailable
from kohakuriver.private_files import replace_file

_TAIL_BYTES = 4096
_TAIL_LINES = 12
_LOG_LIMIT_BYTES = 10_000_000
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Daemon:
    """One of the two programs on this machine; its files are in `base`, which is `~/.kohakuriver`."""

    program: str
    base: Path
    config: Path

    @property
    def log(self) -> Path:
        return self.base / "logs" / f"{self.program}.log"

    @property
    def _pid_file(self) -> Path:
        return self.base / f"{self.program}.pid"

    def pid(self) -> int | None:
        """Return the pid of the running daemon, None if it does not run."""
        try:
            noted = json.loads(self._pid_file.read_bytes())
            pid = int(noted["pid"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return pid if _birth_of(pid) == noted.get("birth") else None

    def start(self) -> "subprocess.Popen[bytes]":
        """Start it in a session of its own, its output going to the log. It must not run yet."""
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [_find_program(self.program), "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        self.note(process.pid)
        return process

    def stop(self, patience_seconds: float) -> bool:
        """End it, by force when it does not go in time; False if it did not run."""
        pid = self.pid()
        if pid is not None:
            birth = _birth_of(pid)
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
                if _wait_for_end(pid, birth, patience_seconds):
                    break
        self._pid_file.unlink(missing_ok=True)
        return pid is not None

    def log_tail(self) -> str:
        """The last lines of the log, for an error message."""
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-_TAIL_LINES:])

    def note(self, pid: int) -> None:
        """Write down which process the daemon is."""
        replace_file(self._pid_file, json.dumps({"pid": pid, "birth": _birth_of(pid)}).encode())


def _find_program(program: str) -> str:
    beside = Path(sys.executable).with_name(f"kohakuriver.{program}")
    found = str(beside) if beside.exists() else shutil.which(f"kohakuriver.{program}")
    if found is None:
        raise Unavailable(f"the program kohakuriver.{program} is not installed; install the package again")
    return found


def _birth_of(pid: int) -> str | None:
    """Boot and start time of a process; None if it does not run, or is dead and not yet waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{boot} {fields[19]}"


def _wait_for_end(pid: int, birth: str | None, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _birth_of(pid) == birth:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
