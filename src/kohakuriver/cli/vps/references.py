"""Sessions as the user names them."""

from typing import TYPE_CHECKING

import click

from kohakuriver.cli.completion import complete_sessions
from kohakuriver.cli.tasks.commands import task_id_of
from kohakuriver.models.enums import TaskType

if TYPE_CHECKING:
    from kohakuriver.client.host_client import HostClient
    from kohakuriver.client.vps_records import VpsRecord

session_argument = click.argument("session_ref", metavar="ID", shell_complete=complete_sessions)
sessions_argument = click.argument(
    "session_refs", metavar="ID…", nargs=-1, required=True, shell_complete=complete_sessions
)


def session_of(client: "HostClient", ref: str) -> "VpsRecord":
    """Return the session that a user's short form of its id, or its name, means.

    Raises NotFound for a command task: what is meant for sessions must not reach one by mistake.
    """
    return client.vps.status(task_id_of(client, ref, TaskType.VPS)).value


def session_id_of(client: "HostClient", ref: str) -> str:
    return session_of(client, ref).task_id


def callable_name(session: "VpsRecord") -> str:
    """What to write for it on the command line: its name if it has one."""
    return session.name or session.task_id
