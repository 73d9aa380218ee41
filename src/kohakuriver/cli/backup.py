"""`kohakuriver backup`: the host's state as one file. It works on files of this machine, not over the API:
what must be restored is what answers the API.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kohakuriver.cli.console.plain_text import neutralised_lines

if TYPE_CHECKING:
    from kohakuriver.host.backup import BackupContents

_file_argument = click.argument("file", type=click.Path(path_type=Path))
_config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The host's configuration file, which says where its database is.",
)


@click.group("backup")
def backup() -> None:
    """Back up the host's state on this machine, verify a backup, restore one.

    A backup holds the database and the host's identity key: keep it as safe as these. Run these commands as
    the user that the host runs as.
    """


@backup.command("create")
@_file_argument
@_config_option
def create(file: Path, config: Path | None) -> None:
    """Write a backup to FILE; the host may run meanwhile."""
    from kohakuriver.host.backup import create_backup

    manifest = create_backup(_database(config), file)
    click.echo(
        f"{file}: backup of cluster {manifest.cluster_id}, {_in_mib(file.stat().st_size)} "
        f"({_in_mib(sum(entry.size_bytes for entry in manifest.files))} unpacked)"
    )


@backup.command("verify")
@_file_argument
def verify(file: Path) -> None:
    """Check FILE from its first byte to its last row, and say what is inside."""
    from kohakuriver.host.backup import verify_backup

    contents = verify_backup(file)
    click.echo(f"{file} is sound.")
    _tell(contents)


@backup.command("restore")
@_file_argument
@_config_option
@click.option("--force", is_flag=True, help="Put a state aside that is there already.")
def restore(file: Path, config: Path | None, force: bool) -> None:
    """Put the state in FILE in the place of the host's; the host must not run.

    Tasks that waited in the backup may have run since, so they wait for approval. What nodes run is kept.
    """
    from kohakuriver.host.backup import restore_backup

    database = _database(config)
    restored = restore_backup(file, database, force=force)
    click.echo(f"Restored {database}.")
    _tell(restored.contents)
    if restored.previous is not None:
        click.echo(f"What was there before is in {restored.previous}")
    click.echo(
        "Next: start the host. Tasks that waited when the backup was made may have run since, so they wait\n"
        "for approval now: kohakuriver task list -s pending_approval. Tokens and nodes that were taken away\n"
        "after the backup was made are back: take them away again."
    )


def _database(config: Path | None) -> Path:
    from kohakuriver.config import load_host_config

    return Path(load_host_config(config).db_file)


def _tell(contents: "BackupContents") -> None:
    manifest = contents.manifest
    tasks = ", ".join(f"{count} {state}" for state, count in contents.tasks_by_state.items())
    told = (
        f"  made at      {manifest.made_at} by version {manifest.program_version}, schema {manifest.schema}\n"
        f"  cluster      {manifest.cluster_id}, host key {contents.host_fingerprint}\n"
        f"  tasks        {tasks or 'none'}\n"
        f"  nodes        {', '.join(contents.nodes) or 'none'}\n"
        f"  users        {contents.users}"
    )
    click.echo(neutralised_lines(told))


def _in_mib(count_bytes: int) -> str:
    return f"{count_bytes / (1 << 20):.1f} MiB"
