"""Entry points of the two daemons: settings checked, logging set up, then the composition root runs.

Exit statuses: 0 ended by a signal, 1 could not start or failed, 78 (EX_CONFIG) a setting does not fit.
"""

import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from kohakuriver.cli.plain_text import neutralised_lines
from kohakuriver.config import ConfigFaults, HostConfig, RunnerConfig, load_host_config, load_runner_config
from kohakuriver.models.errors import KohakuRiverError

_Config = TypeVar("_Config", HostConfig, RunnerConfig)

_config_option = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="Configuration file to load."
)
_bind_option = click.option("--bind", metavar="IP", help="Listen there instead of at the configured address.")
_port_option = click.option("--port", type=click.IntRange(1, 65535), help="Listen on this port instead.")


@click.command("host")
@_config_option
@_bind_option
@_port_option
def host_command(config: Path | None, bind: str | None, port: int | None) -> None:
    """Run the host on this machine until it is told to end."""
    settings = _checked(load_host_config, config)
    settings = replace(
        settings, host_bind_ip=bind or settings.host_bind_ip, host_port=port or settings.host_port
    )
    from kohakuriver.host.app import run_host

    _run(lambda: run_host(settings), settings.log_level, settings.host_log_file)


@click.command("runner")
@_config_option
@_bind_option
@_port_option
def runner_command(config: Path | None, bind: str | None, port: int | None) -> None:
    """Run a runner on this machine until it is told to end; workloads outlive it."""
    settings = _checked(load_runner_config, config)
    settings = replace(
        settings, runner_bind_ip=bind or settings.runner_bind_ip, runner_port=port or settings.runner_port
    )
    from kohakuriver.runner.app import run_runner

    _run(lambda: run_runner(settings), settings.log_level, settings.runner_log_file)


def _checked(load: Callable[[Path | None], _Config], path: Path | None) -> _Config:
    try:
        return load(path)
    except ConfigFaults as faults:
        click.echo(neutralised_lines(str(faults)), err=True)
        sys.exit(faults.exit_status)


def _run(serve: Callable[[], Coroutine[Any, Any, None]], level: Any, log_file: str) -> None:
    """Run in an event loop of uvloop's; what keeps a daemon from running is told in one line."""
    import structlog
    import uvloop

    from kohakuriver.logging_setup import set_up_logging

    set_up_logging(level, log_file)
    try:
        uvloop.run(serve())
    except KohakuRiverError as error:
        structlog.get_logger().error("cannot_run", reason=str(error))
        click.echo(f"Error: {neutralised_lines(str(error))}", err=True)
        sys.exit(1)


def host_main() -> None:
    """`kohakuriver.host`."""
    host_command.main(prog_name="kohakuriver.host")


def runner_main() -> None:
    """`kohakuriver.runner`."""
    runner_command.main(prog_name="kohakuriver.runner")
