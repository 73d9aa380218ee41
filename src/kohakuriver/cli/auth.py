"""`auth …`: who one is on a host, and the tokens by which it knows one."""

import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from kohakuriver.cli.console.output import Facts, Records, Table, output_option, show
from kohakuriver.cli.console.plain_text import neutralised
from kohakuriver.cli.console.sizes import age_text
from kohakuriver.cli.host_choice import HostChoice, pass_host
from kohakuriver.models.errors import Conflict, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kohakuriver.client.auth import TokenRecord
    from kohakuriver.client.host_client import HostClient

_ROLES = ("viewer", "user", "operator", "admin")


@click.group()
def auth() -> None:
    """Log in to a host with a token; make and end tokens."""


@auth.command()
@click.option(
    "--token", metavar="TOKEN", help="Token to log in with; - reads it from standard input, none asks for it."
)
@click.option(
    "--token-name", metavar="NAME", help="Make a token of this name with it, and keep that instead."
)
@pass_host
def login(chosen_host: HostChoice, token: str | None, token_name: str | None) -> None:
    """Keep a token for the host, after the host has taken it; commands to that host send it from then on."""
    from kohakuriver.cli.kept_tokens import file_of_tokens, keep_token
    from kohakuriver.client.host_client import HostClient

    access = replace(chosen_host.access(), token=_given(token))
    with HostClient(access) as client:
        me = client.auth.me().value
        if not me.auth_enabled:
            raise Conflict("this host asks nobody for a token (AUTH_ENABLED = False), so none is kept")
        kept = client.auth.create_token(token_name).value.token if token_name else access.token
    keep_token(access.url, kept or "")
    print(neutralised(f"logged in to {access.url} as {me.name} ({me.role}); kept in {file_of_tokens()}"))
    if chosen_host.token_of_environment():
        click.echo("KOHAKURIVER_TOKEN is set here and is sent instead of it.", err=True)


def _given(token: str | None) -> str:
    text = token
    if token is None:
        text = click.prompt("Token", hide_input=True, err=True)
    elif token == "-":  # noqa: S105 - the usual word for standard input
        text = sys.stdin.readline()
    text = (text or "").strip()
    if not text:
        raise click.UsageError("no token was given")
    return text


@auth.command()
@click.option("--revoke", is_flag=True, help="End the token itself, with those that were made with it.")
@pass_host
def logout(chosen_host: HostChoice, revoke: bool) -> None:
    """Forget the token that was kept for the host."""
    from kohakuriver.cli.kept_tokens import forget_token, kept_token
    from kohakuriver.client.host_client import HostClient

    access = chosen_host.access()
    token = kept_token(access.url)
    if token is None:
        print(neutralised(f"no token is kept for {access.url}"))
        return
    if revoke:
        with HostClient(replace(access, token=token)) as client:
            _revoke_own(client)
    forget_token(access.url)
    print(neutralised(f"logged out of {access.url}" + ("; the token is ended" if revoke else "")))


def _revoke_own(client: "HostClient") -> None:
    try:
        own = client.auth.me().value.token_id
    except Unauthenticated:
        return  # it was ended before
    if own is None:
        raise Conflict(
            "this host does not tell which token it is; end it with `kohakuriver auth token revoke`"
        )
    client.auth.delete_token(own)


@auth.command()
@output_option
@pass_host
def status(chosen_host: HostChoice, output: str) -> None:
    """Show as whom the host knows one."""
    reply = chosen_host.client.auth.me()
    me = reply.value
    facts = Facts(
        [
            ("Host", chosen_host.access().url),
            ("User", me.name),
            ("Role", me.role),
            ("Authentication", "on" if me.auth_enabled else "off: whoever reaches the host is administrator"),
        ]
    )
    show(Records(reply.raw, facts, [me.name]), output)


@auth.group("token")
def token_group() -> None:
    """Tokens: the one that is sent, and those that were made with it."""


@token_group.command("list")
@output_option
@pass_host
def list_tokens(chosen_host: HostChoice, output: str) -> None:
    """List them without their secrets, oldest first."""
    reply = chosen_host.client.auth.tokens()
    table = token_table(reply.value, datetime.now(UTC))
    show(Records(reply.raw, table, [str(item.id) for item in reply.value]), output)


def token_table(tokens: "Sequence[TokenRecord]", now: datetime) -> Table:
    return Table(
        headings=("ID", "NAME", "ROLE", "AGE", "LAST USED"),
        rows=[
            (
                str(item.id),
                item.name or "-",
                item.role or "-",
                age_text(item.created_at, now),
                f"{age_text(item.last_used, now)} ago" if item.last_used else "never",
            )
            for item in tokens
        ],
        empty="No tokens.",
    )


@token_group.command("create")
@click.argument("name")
@click.option("--role", type=click.Choice(_ROLES), help="At most your own, which it is without.")
@output_option
@pass_host
def create_token(chosen_host: HostChoice, name: str, role: str | None, output: str) -> None:
    """Make a token and print it; it is shown this once."""
    reply = chosen_host.client.auth.create_token(name, role)
    if output == "table":
        print(neutralised(reply.value.token or ""))
        click.echo(f"That is token {reply.value.id}; it is shown this once.", err=True)
        return
    show(Records(reply.raw, Facts(()), [str(reply.value.id)]), output)


@token_group.command("revoke")
@click.argument("token_id", metavar="ID")
@pass_host
def revoke_token(chosen_host: HostChoice, token_id: str) -> None:
    """End a token, with those that were made with it."""
    print(neutralised(chosen_host.client.auth.delete_token(token_id).value.message or token_id))
