"""systemd units for the two daemons, made for this installation and the user who asks."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.config.paths import default_path, is_absent
from kohakuriver.models.errors import Conflict, Denied, NotFound

# A faulty configuration (78) does not get better by trying again.
_UNIT = """\
[Unit]
Description=KohakuRiver {name}
Wants=network-online.target
After=network-online.target{after}
StartLimitIntervalSec=0

[Service]
Type=exec
{user}{begin}ExecStart={command}
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=78
OOMScoreAdjust=-500
{extra}LimitNOFILE=1048576
UMask=0077

[Install]
WantedBy=multi-user.target
"""
_RUNNER_EXTRA = """\
# Workloads outlive their runner: only its own process is ended with the unit.
KillMode=process
"""


_CAPTURED = ("PATH", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class UnitOptions:
    """What a unit is to have otherwise than by default. `python` runs the daemon as a module."""

    config: Path | None = None
    working_dir: Path | None = None
    python: Path | None = None
    captures_environment: bool = False


def unit_for(name: str, options: UnitOptions | None = None) -> str:
    """Return the unit of `host` or `runner`; raises NotFound if its program is not installed.

    Raises Denied for a runner's where somebody else than root asks: it would not start.
    """
    is_runner = name == "runner"
    if is_runner and os.geteuid() != 0:
        raise Denied("a runner runs as root: make its unit with `sudo kohakuriver init service --runner`")
    options = options or UnitOptions()
    if options.python:
        # Not resolved: a link in a virtual environment is what makes it that environment's Python.
        command = [str(options.python.absolute()), "-m", f"kohakuriver.cli.{name}"]
    else:
        command = [_program(f"kohakuriver.{name}")]
    config = options.config.absolute() if options.config else default_path(f"{name}_config.py")
    if not is_absent(config):
        command += ["--config", str(config)]
    return _UNIT.format(
        name=name,
        after=" docker.service" if is_runner else "",
        user="" if os.geteuid() == 0 else f"User={os.geteuid()}\n",
        begin=_begin(options),
        command=" ".join(map(_quoted, command)),
        extra=_RUNNER_EXTRA if is_runner else "",
    )


def _begin(options: UnitOptions) -> str:
    """Where, and with what of this process's environment, it starts."""
    lines = []
    if options.working_dir:
        lines.append(f"WorkingDirectory={str(options.working_dir.absolute()).replace('%', '%%')}\n")
    if options.captures_environment:
        known = {variable: os.environ[variable] for variable in _CAPTURED if os.environ.get(variable)}
        lines += [f"Environment={_assignment(variable, value)}\n" for variable, value in known.items()]
    return "".join(lines)


def _assignment(variable: str, value: str) -> str:
    escaped = f"{variable}={value}".replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def write_unit(directory: Path, name: str, text: str, *, force: bool) -> Path:
    """Write a unit into the directory and return its path; raises Conflict if it exists and not `force`."""
    path = directory / f"kohakuriver-{name}.service"
    directory.mkdir(parents=True, exist_ok=True)
    if path.exists() and not force:
        raise Conflict(f"{path} exists already; --force writes it anew")
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    return path


def _program(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise NotFound(f"{name} is not installed beside {sys.executable}, nor on PATH")
    return found


def _quoted(word: str) -> str:
    """Write one word of a systemd command line: `%` and `$` are specifiers there, quotes hold spaces."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(char in " \t'\"\\;" for char in word) else escaped
