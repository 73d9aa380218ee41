"""`vps list|status|stop|restart|pause|resume|kill`: VPSs looked at and steered."""

from functools import partial
from typing import TYPE_CHECKING

import click

from kohakuriver.cli.console.output import Records, cut_sentence, output_option, show
from kohakuriver.cli.console.watching import show_repeatedly, watch_option
from kohakuriver.cli.host_choice import HostChoice, pass_host
from kohakuriver.cli.tasks.commands import for_each
from kohakuriver.cli.vps.references import vps_argument, vps_id_of, vps_of, vps_refs_argument

if TYPE_CHECKING:
    from kohakuriver.client.vps_records import VpsRecord

no_wait_option = click.option(
    "--wait/--no-wait", default=True, help="Return when it is done (the default), or at once."
)


@click.command("list")
@click.option("-a", "--all", "everything", is_flag=True, help="All there are, however many.")
@click.option("--active", is_flag=True, help="Only those that run, are being started or wait for room.")
@click.option("-l", "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many.")
@watch_option
@output_option
@pass_host
def list_vps(
    chosen_host: HostChoice, everything: bool, active: bool, limit: int, watch: float | None, output: str
) -> None:
    """List VPSs, newest first."""
    if everything and active:
        raise click.UsageError("--all and --active exclude each other")
    from kohakuriver.cli.vps.views import vps_table

    def collect() -> Records:
        vps = chosen_host.client.vps
        collect_them = vps.active if active else vps.everything if everything else partial(vps.page, limit)
        reply = collect_them()
        may_be_cut = not active and not everything and len(reply.value) == limit
        is_cut = may_be_cut and vps.page(1, offset=limit).value
        left_out = cut_sentence("VPSs", limit) if is_cut else ""
        names = [item.task_id for item in reply.value]
        return Records(reply.raw, vps_table(reply.value), names, left_out)

    show_repeatedly(collect, output, watch)


@click.command()
@vps_argument
@output_option
@pass_host
def status(chosen_host: HostChoice, vps_ref: str, output: str) -> None:
    """Show a VPS: where it is, how to get in, and what went wrong, if anything did."""
    from kohakuriver.cli.vps.views import vps_facts

    reply = chosen_host.client.vps.status(vps_id_of(chosen_host.client, vps_ref))
    show(Records(reply.raw, vps_facts(reply.value), [reply.value.task_id]), output)


@click.command()
@vps_argument
@no_wait_option
@pass_host
def stop(chosen_host: HostChoice, vps_ref: str, wait: bool) -> None:
    """End a VPS in order; `vps restart` starts it again.

    The node makes a snapshot first (AUTO_SNAPSHOT_ON_STOP). Where it cannot, the VPS goes on, the reason
    is printed and the exit status is 1.
    """
    from kohakuriver.cli.vps.waiting import await_stopped

    client = chosen_host.client
    before = vps_of(client, vps_ref)
    reply = client.vps.stop(before.task_id)
    if not wait:
        _say(reply.value.message)
        return
    await_stopped(client, before)
    _say(f"VPS {before.task_id} is stopped")


@click.command()
@vps_argument
@no_wait_option
@pass_host
def restart(chosen_host: HostChoice, vps_ref: str, wait: bool) -> None:
    """Start a VPS again, from its newest snapshot; one that runs is stopped in order first."""
    from kohakuriver.cli.vps.waiting import await_running

    client = chosen_host.client
    before = vps_of(client, vps_ref)
    reply = client.vps.restart(before.task_id)
    if not wait:
        _say(reply.value.message)
        return
    tell_where(await_running(client, before.task_id, before.attempt).value)


@click.command()
@vps_refs_argument
@pass_host
def pause(chosen_host: HostChoice, vps_refs: tuple[str, ...]) -> None:
    """Freeze running VPSs; they keep what they hold."""
    for_each(chosen_host, vps_refs, chosen_host.client.tasks.pause, vps_id_of)


@click.command()
@vps_refs_argument
@pass_host
def resume(chosen_host: HostChoice, vps_refs: tuple[str, ...]) -> None:
    """Let paused VPSs run on."""
    for_each(chosen_host, vps_refs, chosen_host.client.tasks.resume, vps_id_of)


@click.command()
@vps_refs_argument
@pass_host
def kill(chosen_host: HostChoice, vps_refs: tuple[str, ...]) -> None:
    """End VPSs at once and for good.

    No snapshot is made, and they cannot be started again. Snapshots of before stay until they are deleted.
    """
    for_each(chosen_host, vps_refs, chosen_host.client.tasks.kill, vps_id_of)


@click.command()
@vps_refs_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_host
def delete(chosen_host: HostChoice, vps_refs: tuple[str, ...], yes: bool) -> None:
    """Delete VPSs that have ended: all that was in them, their snapshots, their output, their records.

    What is in /shared and other mounts stays. Stop or kill a VPS that runs first.
    """
    from kohakuriver.cli.console.plain_text import ask_first

    found = [vps_of(chosen_host.client, ref) for ref in vps_refs]
    for item in found:
        name = f" ({item.name})" if item.name else ""
        ask_first(f"Delete VPS {item.task_id}{name} with all its snapshots, for good?", yes)
    for_each(chosen_host, tuple(item.task_id for item in found), chosen_host.client.vps.delete, vps_id_of)


def tell_where(record: "VpsRecord") -> None:
    """Say where a VPS runs now, and what went wrong on the way there, if anything did."""
    from kohakuriver.cli.console.plain_text import complain

    address = f" at {record.address}" if record.address else ""
    _say(f"VPS {record.task_id} runs on {record.assigned_node}{address}")
    if record.notice:
        complain(f"VPS {record.task_id}: {record.notice}")


def _say(text: str) -> None:
    from kohakuriver.cli.console.plain_text import neutralised

    print(neutralised(text))
