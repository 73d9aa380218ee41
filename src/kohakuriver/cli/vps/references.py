"""VPSs as the user names them."""

from typing import TYPE_CHECKING

import click

from kohakuriver.cli.completion import complete_vps
from kohakuriver.cli.tasks.commands import task_id_of
from kohakuriver.models.enums import TaskType

if TYPE_CHECKING:
    from kohakuriver.client.host_client import HostClient
    from kohakuriver.client.vps_records import VpsRecord

vps_argument = click.argument("vps_ref", metavar="ID", shell_complete=complete_vps)
vps_refs_argument = click.argument(
    "vps_refs", metavar="ID…", nargs=-1, required=True, shell_complete=complete_vps
)


def vps_of(client: "HostClient", ref: str) -> "VpsRecord":
    """Return the VPS that a user's short form of its id, or its name, means.

    Raises NotFound for a command task: what is meant for VPSs must not reach one by mistake.
    """
    return client.vps.status(task_id_of(client, ref, TaskType.VPS)).value


def vps_id_of(client: "HostClient", ref: str) -> str:
    return vps_of(client, ref).task_id


def callable_name(vps: "VpsRecord") -> str:
    """What to write for it on the command line: its name if it has one."""
    return vps.name or vps.task_id
