"""`vps assign|unassign|assignments`: who may use a VPS beside its owner."""

import click

from kohakuriver.cli.console.output import Records, output_option, show
from kohakuriver.cli.console.plain_text import neutralised
from kohakuriver.cli.host_choice import HostChoice, pass_host
from kohakuriver.cli.vps.references import vps_argument, vps_id_of


@click.command()
@vps_argument
@click.argument("user_name", metavar="USER")
@pass_host
def assign(chosen_host: HostChoice, vps_ref: str, user_name: str) -> None:
    """Let USER use a VPS: its shells, files and SSH (operators).

    It stays its owner's. Only the owner and operators can stop it, start it again and delete its snapshots.
    """
    reply = chosen_host.client.vps.assign(vps_id_of(chosen_host.client, vps_ref), user_name)
    print(neutralised(reply.value.message))


@click.command()
@vps_argument
@click.argument("user_name", metavar="USER")
@pass_host
def unassign(chosen_host: HostChoice, vps_ref: str, user_name: str) -> None:
    """Take the right to use a VPS away from USER; what they have open in it ends (operators)."""
    reply = chosen_host.client.vps.unassign(vps_id_of(chosen_host.client, vps_ref), user_name)
    print(neutralised(reply.value.message))


@click.command()
@vps_argument
@output_option
@pass_host
def assignments(chosen_host: HostChoice, vps_ref: str, output: str) -> None:
    """List the users to whom a VPS is assigned (operators)."""
    from kohakuriver.cli.vps.views import assignment_table

    reply = chosen_host.client.vps.assignments(vps_id_of(chosen_host.client, vps_ref))
    names = [item.username for item in reply.value]
    show(Records(reply.raw, assignment_table(reply.value), names), output)
