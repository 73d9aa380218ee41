"""`docker login`, `docker logout` and `docker registries`: who the cluster is at a registry."""

import sys
from datetime import UTC, datetime

import click

from kohakuriver.cli.console.output import Records, Table, output_option, show
from kohakuriver.cli.console.plain_text import neutralised
from kohakuriver.cli.console.sizes import age_text
from kohakuriver.cli.host_choice import HostChoice, pass_host

_DEFAULT = "docker.io"
_MOST_PASSWORD_BYTES = 16_000
_registry_argument = click.argument("registry", required=False, default=_DEFAULT, metavar="[REGISTRY]")


@click.command()
@_registry_argument
@click.option("-u", "--username", required=True, help="Who the cluster is there.")
@click.option("--password-stdin", is_flag=True, help="Read the password or token from standard input.")
@pass_host
def login(chosen_host: HostChoice, registry: str, username: str, password_stdin: bool) -> None:
    """Have all nodes pull from REGISTRY (host or host:port) with these credentials, for every task.

    The host keeps them sealed and shows them to nobody. Without --password-stdin the password is asked for.
    """
    password = _password(password_stdin)
    if not password:
        raise click.UsageError("the password is empty")
    reply = chosen_host.client.environments.log_in(registry, username, password)
    print(neutralised(reply.value.message))


@click.command()
@_registry_argument
@pass_host
def logout(chosen_host: HostChoice, registry: str) -> None:
    """Forget the cluster's credentials for REGISTRY; images that were pulled with them stay."""
    print(neutralised(chosen_host.client.environments.log_out(registry).value.message))


@click.command()
@output_option
@pass_host
def registries(chosen_host: HostChoice, output: str) -> None:
    """List the registries that the cluster has credentials for."""
    reply = chosen_host.client.environments.registries()
    now = datetime.now(UTC)
    table = Table(
        headings=("REGISTRY", "USER", "KEPT BY", "AGE"),
        rows=[
            (item.registry, item.username, item.kept_by, age_text(item.kept_at, now)) for item in reply.value
        ],
        empty="No credentials; `kohakuriver docker login REGISTRY -u USER` gives the cluster some.",
    )
    show(Records(reply.raw, table, [item.registry for item in reply.value]), output)


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.read(_MOST_PASSWORD_BYTES + 1).rstrip("\r\n")
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask for the password; give it with --password-stdin")
    return str(click.prompt("Password or token", hide_input=True, err=True))
