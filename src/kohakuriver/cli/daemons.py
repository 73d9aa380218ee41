"""Entry points of the two daemons: settings checked, logging set up, then the composition root runs.

Exit statuses: 0 ended by a signal, 1 could not start or failed, 78 (EX_CONFIG) a setting does not fit.
"""

import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from kohakuriver.cli.boundary import run_guarded
from kohakuriver.cli.console.plain_text import neutralised_lines
from kohakuriver.config import ConfigFaults, HostConfig, RunnerConfig, load_host_config, load_runner_config
from kohakuriver.models.errors import KohakuRiverError

_Config = TypeVar("_Config", HostConfig, RunnerConfig)

_config_option = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="Configuration file to load."
)
_bind_option = click.option("--bind", metavar="IP", help="Listen there instead of at the configured address.")
_port_option = click.option("--port", type=click.IntRange(1, 65535), help="Listen on this port instead.")


@click.group("host", invoke_without_command=True)
@_config_option
@_bind_option
@_port_option
@click.pass_context
def host_command(context: click.Context, config: Path | None, bind: str | None, port: int | None) -> None:
    """Run the host on this machine until it is told to end."""
    if context.invoked_subcommand is not None:
        return
    settings = _checked(load_host_config, config)
    settings = replace(
        settings, host_bind_ip=bind or settings.host_bind_ip, host_port=port or settings.host_port
    )
    from kohakuriver.host.app import run_host

    _run(lambda: run_host(settings), settings.log_level, settings.host_log_file)


@host_command.command("fingerprint")
@_config_option
def host_fingerprint(config: Path | None) -> None:
    """Print the fingerprint of this machine's host, to be compared with what a node or a client shows."""
    from kohakuriver.client.connection.local_node import local_host_fingerprint
    from kohakuriver.models.errors import NotFound

    database = _checked(load_host_config, config).db_file
    fingerprint = local_host_fingerprint(Path(database))
    if fingerprint is None:
        raise NotFound(f"the host with the database {database} has no key yet; start it once")
    click.echo(fingerprint)


@click.group("runner", invoke_without_command=True)
@_config_option
@_bind_option
@_port_option
@click.pass_context
def runner_command(context: click.Context, config: Path | None, bind: str | None, port: int | None) -> None:
    """Run a runner on this machine until it is told to end; workloads outlive it."""
    if context.invoked_subcommand is not None:
        return
    settings = _checked(load_runner_config, config)
    settings = replace(
        settings, runner_bind_ip=bind or settings.runner_bind_ip, runner_port=port or settings.runner_port
    )
    from kohakuriver.runner.app import run_runner

    _run(lambda: run_runner(settings), settings.log_level, settings.runner_log_file)


@runner_command.command("trust")
@click.argument("fingerprint", metavar="SHA256:…")
def runner_trust(fingerprint: str) -> None:
    """Have this machine's runner, which has no join token, enrol with the host of that fingerprint.

    Run it as the user that the runner runs as. `kohakuriver host fingerprint` on the host's machine prints
    the fingerprint.
    """
    from kohakuriver.client.connection.local_node import confirm_host, local_node

    click.echo(f"Wrote {confirm_host(local_node(), fingerprint)}")


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
    sys.exit(run_guarded(host_command, "kohakuriver.host"))


def runner_main() -> None:
    """`kohakuriver.runner`."""
    sys.exit(run_guarded(runner_command, "kohakuriver.runner"))
