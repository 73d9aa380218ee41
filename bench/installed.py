"""The daemons' programs as `make up` installs them, without the tools of development.

Some libraries load what they find (rich, telemetry), so beside those tools a daemon is 6 MiB larger.
"""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

from bench.measuring import ROOT

_LOCK = ROOT / "requirements.lock"


def installed_programs() -> Path:
    """The folder of the programs; made below `.cache/` where it is missing, which needs the package index."""
    content = f"{ROOT}{sys.version}".encode() + _LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    folder = ROOT / ".cache" / f"installed-{hashlib.sha256(content).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / ".done"
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / "venv")], check=True)
            pip = [
                str(folder / "venv/bin/python"),
                "-m",
                "pip",
                "--disable-pip-version-check",
                "install",
                "-q",
            ]
            subprocess.run([*pip, "--require-hashes", "-r", str(_LOCK)], check=True)
            subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT)], check=True)
            done.touch()
    return folder / "venv" / "bin"
