"""`vps assign|unassign|assignments`: who may use a session beside its owner."""

import click

from kohakuriver.cli.console.output import Records, output_option, show
from kohakuriver.cli.console.plain_text import neutralised
from kohakuriver.cli.session import Session, pass_session
from kohakuriver.cli.vps.references import session_argument, session_id_of


@click.command()
@session_argument
@click.argument("user_name", metavar="USER")
@pass_session
def assign(session: Session, session_ref: str, user_name: str) -> None:
    """Let USER use a session: its shells, files and SSH (operators).

    It stays its owner's, who alone, operators aside, can stop it, start it again and delete its snapshots.
    """
    reply = session.client.vps.assign(session_id_of(session.client, session_ref), user_name)
    print(neutralised(reply.value.message))


@click.command()
@session_argument
@click.argument("user_name", metavar="USER")
@pass_session
def unassign(session: Session, session_ref: str, user_name: str) -> None:
    """Take the right to use a session away from USER; what they have open in it ends (operators)."""
    reply = session.client.vps.unassign(session_id_of(session.client, session_ref), user_name)
    print(neutralised(reply.value.message))


@click.command()
@session_argument
@output_option
@pass_session
def assignments(session: Session, session_ref: str, output: str) -> None:
    """List the users to whom a session is assigned (operators)."""
    from kohakuriver.cli.vps.views import assignment_table

    reply = session.client.vps.assignments(session_id_of(session.client, session_ref))
    names = [item.username for item in reply.value]
    show(Records(reply.raw, assignment_table(reply.value), names), output)
