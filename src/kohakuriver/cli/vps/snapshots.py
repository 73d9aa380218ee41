"""`vps snapshot …` and `vps restore`: states of a VPS that are kept, and going back to one."""

from typing import TYPE_CHECKING

import click

from kohakuriver.cli.completion import complete_nodes
from kohakuriver.cli.console.output import Records, output_option, show
from kohakuriver.cli.console.plain_text import neutralised
from kohakuriver.cli.host_choice import HostChoice, pass_host
from kohakuriver.cli.vps.life import no_wait_option, tell_where
from kohakuriver.cli.vps.references import vps_argument, vps_id_of, vps_of

if TYPE_CHECKING:
    from kohakuriver.client.host_client import HostClient

_UNIX_TIME = click.IntRange(0, 10**12)
_time_argument = click.argument("timestamp", metavar="TIME", type=_UNIX_TIME)
_to_option = click.option(
    "--to",
    "node",
    metavar="NODE",
    shell_complete=complete_nodes,
    help="Go on on another node (stop it first).",
)


@click.group()
def snapshot() -> None:
    """Snapshots of a VPS: its files as they were. They lie on its node.

    TIME is the unix time that names a snapshot, as `snapshot list` shows it.
    """


@snapshot.command("create")
@vps_argument
@click.option("-m", "--message", default="", help="What to remember it by.")
@output_option
@pass_host
def create_snapshot(chosen_host: HostChoice, vps_ref: str, message: str, output: str) -> None:
    """Make a snapshot of a VPS that runs or is paused; its processes stand still meanwhile.

    Beyond MAX_SNAPSHOTS_PER_VPS of its node the oldest one goes.
    """
    from kohakuriver.cli.console.progress import progress
    from kohakuriver.cli.vps.views import snapshot_facts

    task_id = vps_id_of(chosen_host.client, vps_ref)
    with progress(f"Making a snapshot of VPS {task_id}"):
        reply = chosen_host.client.snapshots.create(task_id, message)
    show(Records(reply.raw, snapshot_facts(reply.value), [str(reply.value.timestamp)]), output)


@snapshot.command("list")
@vps_argument
@output_option
@pass_host
def list_snapshots(chosen_host: HostChoice, vps_ref: str, output: str) -> None:
    """List the snapshots of a VPS, newest first."""
    from kohakuriver.cli.vps.views import snapshot_table

    reply = chosen_host.client.snapshots.all(vps_id_of(chosen_host.client, vps_ref))
    names = [str(item.timestamp) for item in reply.value]
    show(Records(reply.raw, snapshot_table(reply.value), names), output)


@snapshot.command("delete")
@vps_argument
@click.argument("timestamp", metavar="[TIME]", type=_UNIX_TIME, required=False)
@click.option("--all", "every", is_flag=True, help="All of them.")
@pass_host
def delete_snapshots(chosen_host: HostChoice, vps_ref: str, timestamp: int | None, every: bool) -> None:
    """Delete one snapshot, or all."""
    if (timestamp is None) is not every:
        raise click.UsageError("say which: the TIME of one snapshot, or --all")
    task_id = vps_id_of(chosen_host.client, vps_ref)
    snapshots = chosen_host.client.snapshots
    reply = snapshots.delete_all(task_id) if timestamp is None else snapshots.delete(task_id, timestamp)
    print(neutralised(reply.value.message))


@snapshot.command("restore")
@vps_argument
@_time_argument
@_to_option
@no_wait_option
@pass_host
def restore_snapshot(
    chosen_host: HostChoice, vps_ref: str, timestamp: int, node: str | None, wait: bool
) -> None:
    """Start a VPS from the snapshot of TIME; one that runs is stopped in order first."""
    _restore(chosen_host.client, vps_ref, timestamp, node, wait)


@click.command()
@vps_argument
@click.argument("timestamp", metavar="[TIME]", type=_UNIX_TIME, required=False)
@_to_option
@no_wait_option
@pass_host
def restore(
    chosen_host: HostChoice, vps_ref: str, timestamp: int | None, node: str | None, wait: bool
) -> None:
    """Start a VPS from its newest snapshot, or the one of TIME.

    One that runs is stopped in order first. With --to it goes on on another node, where the snapshot is taken
    by way of shared storage; stop it before.
    """
    _restore(chosen_host.client, vps_ref, timestamp, node, wait)


def _restore(client: "HostClient", vps_ref: str, timestamp: int | None, node: str | None, wait: bool) -> None:
    from kohakuriver.cli.console.progress import progress
    from kohakuriver.cli.vps.waiting import await_running

    before = vps_of(client, vps_ref)
    chosen = _newest(client, before.task_id) if timestamp is None else timestamp
    with progress(f"Taking up snapshot {chosen} of VPS {before.task_id}"):
        reply = client.snapshots.restore(before.task_id, chosen, node)
    if wait:
        tell_where(await_running(client, before.task_id, before.attempt).value)
    else:
        print(neutralised(reply.value.message))


def _newest(client: "HostClient", task_id: str) -> int:
    from kohakuriver.models.errors import NotFound

    found = client.snapshots.all(task_id).value
    if not found:
        raise NotFound(f"VPS {task_id} has no snapshots; `kohakuriver vps restart {task_id}` starts it")
    return max(item.timestamp for item in found)
