"""`vps …`: the table of its commands, each of which is imported when it is called."""

import click

from kohakuriver.cli.lazy import LazyGroup

_COMMANDS = {
    "create": ("Create a session and wait until one can get in.", "kohakuriver.cli.vps_creation:create"),
    "list": ("List sessions, newest first.", "kohakuriver.cli.vps_life:list_sessions"),
    "status": ("Show a session.", "kohakuriver.cli.vps_life:status"),
    "connect": ("Open a shell in a session.", "kohakuriver.cli.vps_connect:vps_connect"),
    "stop": ("End a session in order, to be started again.", "kohakuriver.cli.vps_life:stop"),
    "restart": ("Start a session again.", "kohakuriver.cli.vps_life:restart"),
    "pause": ("Freeze sessions.", "kohakuriver.cli.vps_life:pause"),
    "resume": ("Let paused sessions run on.", "kohakuriver.cli.vps_life:resume"),
    "kill": ("End sessions for good, at once.", "kohakuriver.cli.vps_life:kill"),
    "delete": ("Delete sessions that have ended, for good.", "kohakuriver.cli.vps_life:delete"),
    "snapshot": ("Snapshots: create, list, restore, delete.", "kohakuriver.cli.vps_snapshots:snapshot"),
    "restore": (
        "Start a session from a snapshot, here or elsewhere.",
        "kohakuriver.cli.vps_snapshots:restore",
    ),
    "assign": ("Let a user use a session.", "kohakuriver.cli.vps_assignments:assign"),
    "unassign": ("Take that right away.", "kohakuriver.cli.vps_assignments:unassign"),
    "assignments": ("List who may use a session.", "kohakuriver.cli.vps_assignments:assignments"),
}


@click.group(cls=LazyGroup, table=_COMMANDS)
def vps() -> None:
    """Persistent sessions: containers to live in, with shells, SSH, files and snapshots.

    ID is a session's id, any ending of it that no other id has, or the session's name.
    """
