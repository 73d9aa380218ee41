"""`kohakuriver config`: what is configured, for daemons, shells and people."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from kohakuriver.cli.console.output import Records, Table, output_option, show
from kohakuriver.cli.console.plain_text import neutralised

if TYPE_CHECKING:
    from kohakuriver.config import ClientConfig, Loaded, Program


@click.group("config")
def config_group() -> None:
    """Show what is configured."""


@config_group.command("show")
@click.option("--runner", is_flag=True, help="The runner's settings.")
@click.option("--host", is_flag=True, help="The host's settings.")
@click.option("--config", "path", type=click.Path(path_type=Path), help="File to look at.")
@output_option
def config_show(runner: bool, host: bool, path: Path | None, output: str) -> None:
    """Print each setting, its value, and where it came from; ends with 78 if there is a fault."""
    from kohakuriver.config import HOST, RUNNER, ConfigFaults, load

    if runner == host:
        raise click.UsageError("say which: --runner or --host")
    program: Program[Any] = RUNNER if runner else HOST
    loaded = load(program, path)
    show(_records(loaded), output)
    for warning in loaded.warnings:
        click.echo(f"Warning: {neutralised(str(warning))}", err=True)
    if loaded.faults:
        raise ConfigFaults(loaded.faults)


@config_group.command("env")
def config_env() -> None:
    """Print the client's environment variables, for `eval "$(kohakuriver config env)"`."""
    from kohakuriver.config import load_client_config

    for line in _exports(load_client_config(), os.environ, for_eyes=sys.stdout.isatty()):
        click.echo(line)


@config_group.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.File("w", lazy=True, atomic=True),
    default="-",
    help="File to write it to instead.",
)
@click.pass_context
def config_completion(context: click.Context, shell: str, output: IO[str]) -> None:
    """Print a script that completes commands and names in SHELL.

    For bash: eval "$(kohakuriver config completion bash)"
    """
    from click.shell_completion import get_completion_class

    make = get_completion_class(shell)
    if make is None:
        raise click.UsageError(f"there is no completion for {shell}")
    root = context.find_root().command
    click.echo(make(root, {}, "kohakuriver", "_KOHAKURIVER_COMPLETE").source(), file=output)


def _records(loaded: "Loaded[Any]") -> Records:
    rows = loaded.settings
    return Records(
        raw=[{"setting": row.setting.name, "value": row.value, "source": row.source} for row in rows],
        view=Table(
            headings=("SETTING", "VALUE", "SOURCE"),
            rows=[(row.setting.name, row.text, row.source) for row in rows],
        ),
        names=[row.setting.name for row in rows],
    )


def _exports(config: "ClientConfig", environment: Mapping[str, str], *, for_eyes: bool) -> list[str]:
    """The variables as shell lines: what is set now, else the file's.

    The file's token and fingerprint are only for the file's host. What is empty is no line: an empty token
    would count as one.
    """
    import shlex

    values = {
        "KOHAKURIVER_HOST": config.host,
        "KOHAKURIVER_PORT": str(config.port),
        "KOHAKURIVER_SSH_PROXY_PORT": str(config.ssh_proxy_port),
        "KOHAKURIVER_HOST_FINGERPRINT": config.host_fingerprint,
        "KOHAKURIVER_TOKEN": config.token,
    }
    own = {name: environment[name] for name in values if environment.get(name)}
    if any(own.get(name, values[name]) != values[name] for name in ("KOHAKURIVER_HOST", "KOHAKURIVER_PORT")):
        values["KOHAKURIVER_TOKEN"] = values["KOHAKURIVER_HOST_FINGERPRINT"] = ""
    values |= own
    token = values.pop("KOHAKURIVER_TOKEN", "")
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items() if value]
    if token and for_eyes:
        lines.append("# KOHAKURIVER_TOKEN is set; it is not shown on a terminal")
    elif token:
        lines.append(f"export KOHAKURIVER_TOKEN={shlex.quote(token)}")
    return lines
