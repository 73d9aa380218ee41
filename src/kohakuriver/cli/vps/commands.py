"""`vps …`: the table of its commands, each of which is imported when it is called."""

import click

from kohakuriver.cli.lazy import LazyGroup

_COMMANDS = {
    "create": ("Create a VPS and wait until one can get in.", "kohakuriver.cli.vps.creation:create"),
    "list": ("List VPSs, newest first.", "kohakuriver.cli.vps.life:list_vps"),
    "status": ("Show a VPS.", "kohakuriver.cli.vps.life:status"),
    "connect": ("Open a shell in a VPS.", "kohakuriver.cli.vps.connect:vps_connect"),
    "stop": ("End a VPS in order, to be started again.", "kohakuriver.cli.vps.life:stop"),
    "restart": ("Start a VPS again.", "kohakuriver.cli.vps.life:restart"),
    "pause": ("Freeze VPSs.", "kohakuriver.cli.vps.life:pause"),
    "resume": ("Let paused VPSs run on.", "kohakuriver.cli.vps.life:resume"),
    "kill": ("End VPSs for good, at once.", "kohakuriver.cli.vps.life:kill"),
    "delete": ("Delete VPSs that have ended, for good.", "kohakuriver.cli.vps.life:delete"),
    "snapshot": ("Snapshots: create, list, restore, delete.", "kohakuriver.cli.vps.snapshots:snapshot"),
    "restore": (
        "Start a VPS from a snapshot, here or elsewhere.",
        "kohakuriver.cli.vps.snapshots:restore",
    ),
    "assign": ("Let a user use a VPS.", "kohakuriver.cli.vps.assignments:assign"),
    "unassign": ("Take that right away.", "kohakuriver.cli.vps.assignments:unassign"),
    "assignments": ("List who may use a VPS.", "kohakuriver.cli.vps.assignments:assignments"),
}


@click.group(cls=LazyGroup, table=_COMMANDS)
def vps() -> None:
    """VPSs: containers to live in, with shells, SSH, files and snapshots.

    ID is a VPS's id, any ending of it that no other id has, or the VPS's name.
    """
