"""`kohakuriver init`: configuration files and systemd units to begin with."""

from pathlib import Path
from typing import Any

import click

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("init")
def init_group() -> None:
    """Write configuration files and systemd units."""


@init_group.command("config")
@click.option("--runner", is_flag=True, help="Write the runner's configuration.")
@click.option("--host", is_flag=True, help="Write the host's configuration.")
@click.option("-g", "--generate", "both", is_flag=True, help="Write both.")
@click.option("--force", is_flag=True, help="Write an existing file anew.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="File to write instead of the one in ~/.kohakuriver; - for standard output.",
)
@click.option(
    "-o",
    "--output-dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write to instead of ~/.kohakuriver.",
)
def init_config(
    runner: bool, host: bool, both: bool, force: bool, output: Path | None, folder: Path | None
) -> None:
    """Write a configuration file with every setting, its default and a line on it."""
    from kohakuriver.config import HOST, RUNNER, render_template, write_config_file
    from kohakuriver.config.paths import default_path

    programs = [program for program, chosen in ((RUNNER, runner), (HOST, host)) if chosen or both]
    if not programs:
        raise click.UsageError("say which: --runner, --host, or --generate for both")
    if output is not None and folder is not None:
        raise click.UsageError("--output and --output-dir exclude each other")
    if output is not None and len(programs) > 1:
        raise click.UsageError("--output takes one of --runner and --host")
    for program in programs:
        text = render_template(program)
        if output == Path("-"):
            click.echo(text, nl=False)
            continue
        path = output or (folder / program.file_name if folder else default_path(program.file_name))
        try:
            write_config_file(path, text, force=force)
        except OSError as error:
            raise click.ClickException(str(error)) from error
        click.echo(path)


@init_group.command("service")
@click.option("--runner", is_flag=True, help="The runner's unit.")
@click.option("--host", is_flag=True, help="The host's unit.")
@click.option("--all", "both", is_flag=True, help="Both units.")
@click.option("--force", is_flag=True, help="Write an existing file anew.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory to write the units to, such as /etc/systemd/system; else they are printed.",
)
@click.option(
    "--no-install", is_flag=True, help="Write the units into the present directory; they start nothing there."
)
@click.option("--host-config", type=_FILE, metavar="FILE", help="The host's configuration.")
@click.option("--runner-config", type=_FILE, metavar="FILE", help="The runner's configuration.")
@click.option(
    "--working-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory to start them in.",
)
@click.option("--python-path", type=_FILE, metavar="FILE", help="Python to start them with.")
@click.option("--capture-env", is_flag=True, help="Start them with PATH and LD_LIBRARY_PATH of now.")
def init_service(
    runner: bool, host: bool, both: bool, force: bool, output: Path | None, no_install: bool, **options: Any
) -> None:
    """Make systemd units that start the daemons as they are installed and configured here."""
    from kohakuriver.cli.local.service import UnitOptions, unit_for, write_unit

    if output is not None and no_install:
        raise click.UsageError("--output and --no-install exclude each other")
    output = Path.cwd() if no_install else output
    configs = {"host": options["host_config"], "runner": options["runner_config"]}
    names = [name for name, chosen in (("host", host or both), ("runner", runner or both)) if chosen]
    if not names:
        raise click.UsageError("say which: --runner, --host or --all")
    for name in names:
        try:
            wanted = UnitOptions(
                configs[name], options["working_dir"], options["python_path"], options["capture_env"]
            )
            text = unit_for(name, wanted)
            if output is None:
                click.echo(text, nl=name != names[-1])
                continue
            click.echo(write_unit(output, name, text, force=force))
        except OSError as error:
            raise click.ClickException(str(error)) from error
    if output is not None and not no_install:
        services = " ".join(f"kohakuriver-{name}" for name in names)
        click.echo(f"next: systemctl daemon-reload && systemctl enable --now {services}", err=True)
