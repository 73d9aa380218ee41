"""`task …`: what is submitted, looked at and steered."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from kohakuriver.cli import params
from kohakuriver.cli.completion import complete_nodes, complete_tasks, complete_workloads
from kohakuriver.cli.console.output import Facts, Records, cut_sentence, output_option, show
from kohakuriver.cli.console.plain_text import complain, neutralised
from kohakuriver.cli.console.watching import show_repeatedly, watch_option
from kohakuriver.cli.host_choice import HostChoice, pass_host
from kohakuriver.cli.tasks.submission import COMMAND_SETTINGS, build_submission, submission_options
from kohakuriver.models.enums import Stream, TaskState, TaskType

if TYPE_CHECKING:
    from kohakuriver.client.host_client import HostClient
    from kohakuriver.client.records import Message, Reply, Submitted

_FULL_ID_DIGITS = 18

task_argument = click.argument("task_ref", metavar="TASK", shell_complete=complete_tasks)
workload_argument = click.argument("task_ref", metavar="ID", shell_complete=complete_workloads)
"""For what works in tasks and VPSs alike."""

tasks_argument = click.argument(
    "task_refs", metavar="TASK…", nargs=-1, required=True, shell_complete=complete_tasks
)


@click.group()
def task() -> None:
    """Submit tasks, look at them, steer them.

    TASK is a task's id, any ending of it that no other id has, or the task's name.
    """


def task_id_of(client: "HostClient", ref: str, named: TaskType | None = None) -> str:
    """Return the id that a user's short form of it means; the host is asked unless it is whole already.

    `named`: of which type it must be if it is meant by its name.
    """
    if ref.isascii() and ref.isdigit() and len(ref) >= _FULL_ID_DIGITS:
        return ref
    return client.tasks.resolve(ref, named)


@task.command(context_settings=COMMAND_SETTINGS)
@submission_options
@click.option("-w", "--wait", is_flag=True, help="Wait for the end; the exit status is then the task's own.")
@output_option
@pass_host
def submit(chosen_host: HostChoice, command: tuple[str, ...], wait: bool, output: str, **options: Any) -> int:
    """Submit COMMAND and print the id of its task, or one id for each target."""
    reply = chosen_host.client.tasks.submit(build_submission(command, options))
    ids = reply.value.task_ids
    if output in ("table", "name"):
        print("\n".join(map(neutralised, ids)), flush=True)
    else:
        show(Records(reply.raw, Facts(()), ids), output)
    refused = _complain_of_refused(reply.value)
    return (_wait_for(chosen_host.client, ids, reached=True) if wait else 0) or refused


def _complain_of_refused(submitted: "Submitted") -> int:
    for item in submitted.failed_targets or ():
        known = isinstance(item, dict) and "target" in item
        complain(f"target {item['target']}: {item.get('reason', 'refused')}" if known else f"refused: {item}")
    return 1 if submitted.failed_targets else 0


@task.command("list")
@click.option(
    "-s",
    "--status",
    type=click.Choice([state.value for state in TaskState]),
    help="Only tasks in this state.",
)
@click.option("-n", "--node", shell_complete=complete_nodes, help="Only tasks of this node.")
@click.option("--name", help="Only tasks of this name.")
@click.option("--mine", is_flag=True, help="Only your own tasks.")
@click.option("-l", "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many.")
@click.option("-c", "--compact", is_flag=True, help="Fewer and narrower columns.")
@watch_option
@output_option
@pass_host
def list_tasks(
    chosen_host: HostChoice, compact: bool, watch: float | None, output: str, **filters: Any
) -> None:
    """List tasks, newest first."""
    from kohakuriver.cli.tasks.views import task_table

    state = TaskState(filters["status"]) if filters["status"] else None

    def collect() -> Records:
        chosen = (state, filters["node"], filters["name"])
        limit, mine = filters["limit"], filters["mine"]
        page = chosen_host.client.tasks.page
        reply = page(*chosen, limit, mine=mine)
        table = task_table(reply.value, compact=compact)
        is_cut = len(reply.value) == limit and page(*chosen, 1, offset=limit, mine=mine).value
        left_out = cut_sentence("tasks", limit) if is_cut else ""
        return Records(reply.raw, table, [item.task_id for item in reply.value], left_out)

    show_repeatedly(collect, output, watch)


@task.command()
@task_argument
@output_option
@pass_host
def status(chosen_host: HostChoice, task_ref: str, output: str) -> None:
    """Show a task; one that waits says for what, node by node."""
    from kohakuriver.cli.tasks.views import task_facts

    reply = chosen_host.client.tasks.status(task_id_of(chosen_host.client, task_ref))
    show(Records(reply.raw, task_facts(reply.value), [reply.value.task_id]), output)


@task.command()
@task_argument
@output_option
@pass_host
def watch(chosen_host: HostChoice, task_ref: str, output: str) -> None:
    """Show a task whenever its state changes, until it has ended."""
    from kohakuriver.cli.tasks.views import task_facts
    from kohakuriver.client.waiting import watch_task

    client = chosen_host.client
    task_id = task_id_of(client, task_ref)
    before = None
    for reply in watch_task(client.tasks, task_id, every_seconds=1):
        record = reply.value
        seen = (record.status, record.assigned_node, record.pending_reasons)
        if seen == before:
            continue
        before = seen
        if output == "table" and not sys.stdout.isatty():
            print(f"{time.strftime('%H:%M:%S')} {record.status.value}", flush=True)
        else:
            show(Records(reply.raw, task_facts(record), [task_id]), output, one_line=True)


@task.command()
@tasks_argument
@pass_host
def wait(chosen_host: HostChoice, task_refs: tuple[str, ...]) -> int:
    """Wait until all these tasks have ended.

    The exit status is the first of theirs, in the order given, that is not 0: the command's own, 137 for a
    task that was killed, 1 for one that never ran.
    """
    client = chosen_host.client
    task_ids = [task_id_of(client, ref) for ref in task_refs]
    return _wait_for(client, task_ids, reached=task_ids != list(task_refs))


def _wait_for(client: "HostClient", task_ids: list[str], *, reached: bool) -> int:
    """`reached`: the host has answered before, so that it is waited for from the start."""
    from kohakuriver.cli.tasks.views import end_sentence, exit_status_of
    from kohakuriver.cli.tasks.waiting_news import WaitingNews
    from kohakuriver.client.waiting import Patience, watch_task

    statuses = []
    patience = Patience(reached=reached)
    for task_id in task_ids:
        news = WaitingNews(None)
        for reply in watch_task(client.tasks, task_id, patience=patience):
            record = reply.value
            news.look(record)
        statuses.append(exit_status_of(record))
        if sentence := end_sentence(record):
            complain(sentence)
    return next((status for status in statuses if status), 0)


@task.command()
@task_argument
@click.option("--stderr", "want_stderr", is_flag=True, help="Standard error instead of standard output.")
@click.option("--both", is_flag=True, help="Both, line by line in the order in which they were written.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Begin N lines before the end.")
@click.option(
    "--since",
    type=params.MOMENT,
    metavar="TIME",
    help="Only what was written since then: 10m, 1h30m, 2026-11-29T14:30.",
)
@click.option("-t", "--timestamps", is_flag=True, help="Put before each line when it was written (UTC).")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Only what that attempt wrote.")
@pass_host
def logs(chosen_host: HostChoice, task_ref: str, **options: Any) -> None:
    """Print the output of a task: of its current attempt, and with -f of those after it.

    Without --both, --since and --timestamps it is one stream, byte for byte. Times are those of the node's
    clock.
    """
    from kohakuriver.descriptors import write_all

    if options["both"] and options["want_stderr"]:
        raise click.UsageError("--both holds standard error already; leave --stderr out")
    stream = Stream.STDERR if options["want_stderr"] else Stream.STDOUT
    follow, tail, attempt = options["follow"], options["tail"], options["attempt"]
    client = chosen_host.client
    task_id = task_id_of(client, task_ref)
    if options["both"] or options["since"] or options["timestamps"]:
        parts = _lines_in_order(client, task_id, stream, options)
    else:
        parts = client.logs.read(task_id, stream, follow=follow, lines=tail, attempt=attempt)
    for part in parts:
        write_all(1, part)


def _lines_in_order(
    client: "HostClient", task_id: str, stream: Stream, options: dict[str, Any]
) -> Iterator[bytes]:
    from kohakuriver.cli.console.timed_lines import timed_lines
    from kohakuriver.client.streams.output_in_order import OutputInOrder, OutputRequest

    since = options["since"]
    request = OutputRequest(
        tuple(Stream) if options["both"] else (stream,),
        since_milliseconds=None if since is None else int(since.timestamp() * 1000),
        tail=options["tail"],
        follow=options["follow"],
        attempt=options["attempt"],
    )
    pieces = OutputInOrder(client.logs, client.tasks, task_id).read(request)
    return timed_lines(pieces, with_times=options["timestamps"])


@task.command()
@tasks_argument
@click.option(
    "--signal",
    type=params.SIGNAL,
    metavar="NAME",
    help="Send this signal to all processes of the tasks, and nothing more; KILL ends them at once.",
)
@pass_host
def kill(chosen_host: HostChoice, task_refs: tuple[str, ...], signal: str | None) -> None:
    """Kill tasks, running or waiting.

    All processes of a running one get SIGTERM, and those that are left when its --grace is over (60 seconds
    unless it was submitted with another) SIGKILL.
    """
    for_each(chosen_host, task_refs, lambda task_id: chosen_host.client.tasks.kill(task_id, signal))


@task.command()
@tasks_argument
@pass_host
def pause(chosen_host: HostChoice, task_refs: tuple[str, ...]) -> None:
    """Freeze running tasks; they keep what they hold."""
    for_each(chosen_host, task_refs, chosen_host.client.tasks.pause)


@task.command()
@tasks_argument
@pass_host
def resume(chosen_host: HostChoice, task_refs: tuple[str, ...]) -> None:
    """Let paused tasks run on."""
    for_each(chosen_host, task_refs, chosen_host.client.tasks.resume)


@task.command()
@tasks_argument
@pass_host
def approve(chosen_host: HostChoice, task_refs: tuple[str, ...]) -> None:
    """Let tasks that wait for approval into the queue (operators)."""
    for_each(chosen_host, task_refs, chosen_host.client.tasks.approve)


@task.command()
@tasks_argument
@click.option("--reason", help="What the submitter is told.")
@pass_host
def reject(chosen_host: HostChoice, task_refs: tuple[str, ...], reason: str | None) -> None:
    """Refuse tasks that wait for approval (operators)."""
    for_each(chosen_host, task_refs, lambda task_id: chosen_host.client.tasks.reject(task_id, reason))


def for_each(
    chosen_host: HostChoice,
    task_refs: tuple[str, ...],
    action: "Callable[[str], Reply[Message]]",
    find: "Callable[[HostClient, str], str]" = task_id_of,
) -> None:
    """Do it to every task before the first failure is reported, so that one bad name stops nothing.

    `find` gives the id that a name means.
    """
    from kohakuriver.models.errors import KohakuRiverError

    failures: list[KohakuRiverError] = []
    for ref in task_refs:
        try:
            task_id = find(chosen_host.client, ref)
            message = action(task_id).value.message
        except KohakuRiverError as error:
            failures.append(error)
        else:
            print(neutralised(message or task_id))
    if failures:
        for failure in failures[1:]:
            print(f"Error: {neutralised(str(failure))}", file=sys.stderr)
        raise failures[0]
