"""Settings of the programs: what they are, loading and checking a file of them, templates of files.

Import from here. The parts are imported when they are first used, for the command line's sake: without a file
of its own, `load_client_config` needs neither the daemons' tables nor kohakuengine.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from kohakuriver.config.client import ClientConfig
    from kohakuriver.config.faults import ConfigFaults, Fault
    from kohakuriver.config.host import HostConfig
    from kohakuriver.config.loading import Effective, Loaded, load
    from kohakuriver.config.programs import CLIENT, HOST, RUNNER, Program
    from kohakuriver.config.runner import RunnerConfig
    from kohakuriver.config.settings import values_that_must_match
    from kohakuriver.config.templates import render_template, write_config_file

T = TypeVar("T")

__all__ = [
    "CLIENT",
    "HOST",
    "RUNNER",
    "ClientConfig",
    "ConfigFaults",
    "Effective",
    "Fault",
    "HostConfig",
    "Loaded",
    "Program",
    "RunnerConfig",
    "effective_settings",
    "load",
    "load_client_config",
    "load_host_config",
    "load_runner_config",
    "render_template",
    "values_that_must_match",
    "write_config_file",
]

_HOMES = {
    "CLIENT": "programs",
    "HOST": "programs",
    "RUNNER": "programs",
    "ClientConfig": "client",
    "ConfigFaults": "faults",
    "Effective": "loading",
    "Fault": "faults",
    "HostConfig": "host",
    "Loaded": "loading",
    "Program": "programs",
    "RunnerConfig": "runner",
    "load": "loading",
    "render_template": "templates",
    "values_that_must_match": "settings",
    "write_config_file": "templates",
}


def load_runner_config(path: Path | None = None) -> "RunnerConfig":
    """Load and check a runner's settings from `path`, else `~/.kohakuriver/runner_config.py`, else defaults.

    Raises ConfigFaults with every fault; logs a warning for what is odd and still works.
    """
    from kohakuriver.config.programs import RUNNER

    return _load(RUNNER, path)


def load_host_config(path: Path | None = None) -> "HostConfig":
    """Load and check a host's settings, as `load_runner_config` does; the file is `host_config.py`."""
    from kohakuriver.config.programs import HOST

    return _load(HOST, path)


def load_client_config(path: Path | None = None) -> "ClientConfig":
    """Load and check the command line's settings, as `load_runner_config` does; the file is `cli_config.py`.

    The environment is not looked at here.
    """
    from kohakuriver.config.client import ClientConfig
    from kohakuriver.config.paths import default_path, is_absent

    if path is None and is_absent(default_path("cli_config.py")):
        return ClientConfig()
    from kohakuriver.config.programs import CLIENT

    return _load(CLIENT, path)


def effective_settings(program: "Program[Any]", path: Path | None = None) -> "tuple[Effective, ...]":
    """Every setting's value as text and where it came from, secrets hidden, faulty ones included."""
    from kohakuriver.config.loading import load

    return load(program, path).settings


def _load(program: "Program[T]", path: Path | None) -> T:
    import logging

    from kohakuriver.config.loading import load

    loaded = load(program, path)
    for warning in loaded.warnings:
        logging.getLogger(__name__).warning("%s", warning)
    return loaded.config()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
