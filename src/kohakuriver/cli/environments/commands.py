"""`docker …`: environments, as containers on the host and as tarballs in shared storage."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from kohakuriver.cli import params
from kohakuriver.cli.completion import complete_containers, complete_environments
from kohakuriver.cli.console.output import Records, Table, output_option, show
from kohakuriver.cli.console.plain_text import neutralised
from kohakuriver.cli.console.progress import progress
from kohakuriver.cli.console.sizes import age_text, size_text
from kohakuriver.cli.console.watching import show_repeatedly, watch_option
from kohakuriver.cli.environments.registry_login import login, logout, registries
from kohakuriver.cli.host_choice import HostChoice, pass_host
from kohakuriver.models.enums import PullPolicy

if TYPE_CHECKING:
    from kohakuriver.client.host_client import HostClient
    from kohakuriver.client.records import Message, Reply

container_argument = click.argument("name", type=params.ENVIRONMENT, shell_complete=complete_containers)
if_there_option = click.option("-f", "--force", is_flag=True, help="Done as well if there are none.")
environment_argument = click.argument("name", type=params.ENVIRONMENT, shell_complete=complete_environments)


@click.group()
def docker() -> None:
    """Environments: named images that tasks run in, by `--container NAME`.

    An environment is made and changed in a container on the host; `docker tar create` then exports it to
    shared storage, from where every node takes it.
    """


@docker.command()
@output_option
@pass_host
def images(chosen_host: HostChoice, output: str) -> None:
    """List the environments that tasks can use."""
    reply = chosen_host.client.environments.tarballs()
    now = datetime.now(UTC)
    table = Table(
        headings=("ENVIRONMENT", "TARBALL", "SIZE", "AGE", "VERSIONS"),
        rows=[
            (
                item.name,
                item.latest_tarball or "-",
                size_text(item.size_bytes),
                age_text(_from_unix(item.latest_timestamp), now),
                str(len(item.all_versions)),
            )
            for item in reply.value
        ],
        empty="No environments; `kohakuriver docker container create IMAGE NAME` makes one.",
    )
    show(Records(reply.raw, table, [item.name for item in reply.value]), output)


@docker.command()
@environment_argument
@if_there_option
@pass_host
def delete(chosen_host: HostChoice, name: str, force: bool) -> None:
    """Delete all tarballs of an environment, and its image on the nodes; what runs on it goes on."""
    _delete_tarballs(chosen_host, name, force)


docker.add_command(login)
docker.add_command(logout)
docker.add_command(registries)


@docker.group()
def container() -> None:
    """Containers on the host in which environments are made and changed."""


@container.command("list")
@watch_option
@output_option
@pass_host
def list_containers(chosen_host: HostChoice, watch: float | None, output: str) -> None:
    """List the containers of environments on the host."""
    show_repeatedly(lambda: _container_records(chosen_host.client), output, watch)


@container.command("create")
@click.argument("image", type=params.IMAGE)
@click.argument("name", type=params.ENVIRONMENT)
@click.option(
    "--pull",
    type=click.Choice([policy.value for policy in PullPolicy]),
    default=PullPolicy.MISSING.value,
    show_default=True,
    help="Ask the registry each time, where the host has no such image, or never.",
)
@pass_host
def create_container(chosen_host: HostChoice, image: str, name: str, pull: str) -> None:
    """Make a container NAME from IMAGE on the host; pulling the image may take minutes."""
    with progress(f"Making environment {name} from {image}"):
        reply = chosen_host.client.environments.create_container(image, name, PullPolicy(pull))
    _say(reply)


@container.command("start")
@container_argument
@pass_host
def start_container(chosen_host: HostChoice, name: str) -> None:
    """Start a container."""
    _say(chosen_host.client.environments.start_container(name))


@container.command("stop")
@container_argument
@pass_host
def stop_container(chosen_host: HostChoice, name: str) -> None:
    """Stop a container; what is in it stays."""
    with progress(f"Stopping environment {name}"):
        reply = chosen_host.client.environments.stop_container(name)
    _say(reply)


@container.command("delete")
@container_argument
@click.option("-f", "--force", is_flag=True, help="Also one that runs.")
@pass_host
def delete_container(chosen_host: HostChoice, name: str, force: bool) -> None:
    """Delete a container; tarballs that were made of it stay."""
    _say(chosen_host.client.environments.delete_container(name, force=force))


@container.command("migrate")
@container_argument
@pass_host
def migrate_container(chosen_host: HostChoice, name: str) -> None:
    """Make an environment of a container of the host's machine that is not ours; that one stays."""
    with progress(f"Migrating environment {name}"):
        reply = chosen_host.client.environments.migrate_container(name)
    _say(reply)


@container.command("shell")
@container_argument
@pass_host
def container_shell(chosen_host: HostChoice, name: str) -> int:
    """Open a shell in a container, to change the environment by hand."""
    from kohakuriver.cli.console.shell import environment_shell

    return environment_shell(chosen_host.access(), name)


@docker.group()
def tar() -> None:
    """Tarballs of environments in shared storage; nodes take the newest one of each."""


@tar.command("list")
@output_option
@pass_host
def list_tarballs(chosen_host: HostChoice, output: str) -> None:
    """List every tarball of every environment, newest first."""
    reply = chosen_host.client.environments.tarballs()
    now = datetime.now(UTC)
    versions = [
        (item.name, version)
        for item in reply.value
        for version in sorted(item.all_versions, key=lambda version: -version.timestamp)
    ]
    table = Table(
        headings=("ENVIRONMENT", "TARBALL", "SIZE", "AGE"),
        rows=[
            (
                name,
                version.tarball,
                size_text(version.size_bytes),
                age_text(_from_unix(version.timestamp), now),
            )
            for name, version in versions
        ],
        empty="No tarballs; `kohakuriver docker tar create NAME` makes one.",
    )
    show(Records(reply.raw, table, [version.tarball for _, version in versions]), output)


@tar.command("create")
@container_argument
@pass_host
def create_tarball(chosen_host: HostChoice, name: str) -> None:
    """Export a container as the newest tarball of its environment; tasks use it from then on."""
    with progress(f"Exporting environment {name}"):
        reply = chosen_host.client.environments.create_tarball(name)
    _say(reply)


@tar.command("delete")
@environment_argument
@if_there_option
@pass_host
def delete_tarballs(chosen_host: HostChoice, name: str, force: bool) -> None:
    """Delete all tarballs of an environment, and its image on the nodes; what runs on it goes on."""
    _delete_tarballs(chosen_host, name, force)


def _delete_tarballs(chosen_host: HostChoice, name: str, force: bool) -> None:
    from kohakuriver.models.errors import NotFound

    try:
        _say(chosen_host.client.environments.delete_tarballs(name))
    except NotFound:
        if not force:
            raise


def _container_records(client: "HostClient") -> Records:
    reply = client.environments.containers()
    now = datetime.now(UTC)
    table = Table(
        headings=("ENVIRONMENT", "STATE", "IMAGE", "AGE"),
        rows=[
            (
                item.environment,
                item.status or "-",
                item.image or "-",
                _age_of(item.created, now),
            )
            for item in reply.value
        ],
        state_column=1,
        empty="No containers; `kohakuriver docker container create IMAGE NAME` makes one.",
    )
    return Records(reply.raw, table, [item.environment for item in reply.value])


def _age_of(created: str | int | None, now: datetime) -> str:
    if isinstance(created, int):
        return age_text(_from_unix(created), now)
    try:
        return age_text(datetime.fromisoformat(created or ""), now)
    except (ValueError, TypeError):  # not a moment, or one without a time zone
        return created or "-"


def _from_unix(timestamp: int | None) -> datetime | None:
    return None if timestamp is None else datetime.fromtimestamp(timestamp, UTC)


def _say(reply: "Reply[Message]") -> None:
    if reply.value.message:
        print(neutralised(reply.value.message))
