"""`vps list|status|stop|restart|pause|resume|kill`: sessions looked at and steered."""

from functools import partial
from typing import TYPE_CHECKING

import click

from kohakuriver.cli.console.output import Records, cut_sentence, output_option, show
from kohakuriver.cli.console.watching import show_repeatedly, watch_option
from kohakuriver.cli.session import Session, pass_session
from kohakuriver.cli.tasks.commands import for_each
from kohakuriver.cli.vps.references import session_argument, session_id_of, session_of, sessions_argument

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
@pass_session
def list_sessions(
    session: Session, everything: bool, active: bool, limit: int, watch: float | None, output: str
) -> None:
    """List sessions, newest first."""
    if everything and active:
        raise click.UsageError("--all and --active exclude each other")
    from kohakuriver.cli.vps.views import session_table

    def collect() -> Records:
        vps = session.client.vps
        collect_them = vps.active if active else vps.everything if everything else partial(vps.page, limit)
        reply = collect_them()
        may_be_cut = not active and not everything and len(reply.value) == limit
        is_cut = may_be_cut and vps.page(1, offset=limit).value
        left_out = cut_sentence("sessions", limit) if is_cut else ""
        names = [item.task_id for item in reply.value]
        return Records(reply.raw, session_table(reply.value), names, left_out)

    show_repeatedly(collect, output, watch)


@click.command()
@session_argument
@output_option
@pass_session
def status(session: Session, session_ref: str, output: str) -> None:
    """Show a session: where it is, how to get in, and what went wrong, if anything did."""
    from kohakuriver.cli.vps.views import session_facts

    reply = session.client.vps.status(session_id_of(session.client, session_ref))
    show(Records(reply.raw, session_facts(reply.value), [reply.value.task_id]), output)


@click.command()
@session_argument
@no_wait_option
@pass_session
def stop(session: Session, session_ref: str, wait: bool) -> None:
    """End a session in order; `vps restart` starts it again.

    The node makes a snapshot first (AUTO_SNAPSHOT_ON_STOP). Where it cannot, the session goes on, the reason
    is printed and the exit status is 1.
    """
    from kohakuriver.cli.vps.waiting import await_stopped

    client = session.client
    before = session_of(client, session_ref)
    reply = client.vps.stop(before.task_id)
    if not wait:
        _say(reply.value.message)
        return
    await_stopped(client, before)
    _say(f"session {before.task_id} is stopped")


@click.command()
@session_argument
@no_wait_option
@pass_session
def restart(session: Session, session_ref: str, wait: bool) -> None:
    """Start a session again, from its newest snapshot; one that runs is stopped in order first."""
    from kohakuriver.cli.vps.waiting import await_running

    client = session.client
    before = session_of(client, session_ref)
    reply = client.vps.restart(before.task_id)
    if not wait:
        _say(reply.value.message)
        return
    tell_where(await_running(client, before.task_id, before.attempt).value)


@click.command()
@sessions_argument
@pass_session
def pause(session: Session, session_refs: tuple[str, ...]) -> None:
    """Freeze running sessions; they keep what they hold."""
    for_each(session, session_refs, session.client.tasks.pause, session_id_of)


@click.command()
@sessions_argument
@pass_session
def resume(session: Session, session_refs: tuple[str, ...]) -> None:
    """Let paused sessions run on."""
    for_each(session, session_refs, session.client.tasks.resume, session_id_of)


@click.command()
@sessions_argument
@pass_session
def kill(session: Session, session_refs: tuple[str, ...]) -> None:
    """End sessions at once and for good.

    No snapshot is made, and they cannot be started again. Snapshots of before stay until they are deleted.
    """
    for_each(session, session_refs, session.client.tasks.kill, session_id_of)


@click.command()
@sessions_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def delete(session: Session, session_refs: tuple[str, ...], yes: bool) -> None:
    """Delete sessions that have ended: all that was in them, their snapshots, their output, their records.

    What is in /shared and other mounts stays. Stop or kill a session that runs first.
    """
    from kohakuriver.cli.console.plain_text import ask_first

    found = [session_of(session.client, ref) for ref in session_refs]
    for item in found:
        name = f" ({item.name})" if item.name else ""
        ask_first(f"Delete session {item.task_id}{name} with all its snapshots, for good?", yes)
    for_each(session, tuple(item.task_id for item in found), session.client.vps.delete, session_id_of)


def tell_where(record: "VpsRecord") -> None:
    """Say where a session runs now, and what went wrong on the way there, if anything did."""
    from kohakuriver.cli.console.plain_text import complain

    address = f" at {record.address}" if record.address else ""
    _say(f"session {record.task_id} runs on {record.assigned_node}{address}")
    if record.notice:
        complain(f"session {record.task_id}: {record.notice}")


def _say(text: str) -> None:
    from kohakuriver.cli.console.plain_text import neutralised

    print(neutralised(text))
