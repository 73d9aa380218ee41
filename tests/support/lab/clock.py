"""Wall clocks that can be moved, each of one process: a shared library, preloaded, and a file for it."""

import hashlib
import os
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")
_CACHE = Path(__file__).parents[3] / ".cache"


def build_library(cache: Path = _CACHE) -> Path:
    """Return the shared library; compiled once for each version of its source."""
    library = cache / f"lab-clock-{hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]}.so"
    if not library.exists():
        cache.mkdir(parents=True, exist_ok=True)
        draft = cache / f"{library.name}-{os.getpid()}"
        options = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(["gcc", *options, "-o", str(draft), str(_SOURCE)], check=True)
        draft.rename(library)
    return library


class MovableClock:
    """The clock of the programs that are started with `environment`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(struct.pack("=q", 0))

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(build_library()), "KOHAKURIVER_LAB_CLOCK": str(self._path)}

    def shift(self, seconds: float) -> None:
        """Let the clock differ from the true time by so much, from now on."""
        with self._path.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", int(seconds * 1_000_000_000)))
