"""`exec`: a command in a workload as if it ran here."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from kohakuriver.cli import params
from kohakuriver.cli.console.shell import TerminalInput, check_terminal, raw_mode, window_size
from kohakuriver.cli.host_choice import HostChoice, pass_host
from kohakuriver.cli.tasks.commands import task_id_of, workload_argument
from kohakuriver.cli.tasks.environment_words import variables_of
from kohakuriver.cli.tasks.submission import COMMAND_SETTINGS, is_text
from kohakuriver.descriptors import write_all
from kohakuriver.models.enums import Flow
from kohakuriver.models.errors import EngineFault

if TYPE_CHECKING:
    from kohakuriver.client.streams.terminal import Start


@click.command("exec", context_settings=COMMAND_SETTINGS)
@click.option("-d", "--detach", is_flag=True, help="Start it and return; it goes on, its output is lost.")
@click.option("-i", "--interactive", is_flag=True, help="Hand standard input on to the command.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-u", "--user", metavar="USER[:GROUP]", help="User to run as; the workload's if not given.")
@click.option("-w", "--workdir", metavar="DIR", help="Working directory; the workload's if not given.")
@click.option("-e", "--env", multiple=True, type=params.ENV_PAIR, help="Variable NAME=VALUE, or NAME.")
@workload_argument
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_host
def exec_command(chosen_host: HostChoice, task_ref: str, command: tuple[str, ...], **options: Any) -> int:
    """Run COMMAND in a running task or VPS and end with its exit status.

    No shell is in between: words are handed on as they are. The command ends with this one, except with -d:
    then it ends by itself or with its workload, and what it writes goes nowhere unless it says where
    (-- sh -c 'work > /shared/log 2>&1').
    """
    if options["detach"]:
        return _launch(chosen_host, task_ref, command, options)
    if options["tty"]:
        check_terminal()
    start = _start(command[1:] if command[0] == "--" else command, options)
    task_id = task_id_of(chosen_host.client, task_ref)
    access = chosen_host.access()
    from kohakuriver.client.streams.terminal import task_command

    reads, has_window = options["interactive"], options["tty"]
    with task_command(access, task_id, start) as terminal:
        if not reads:
            terminal.end_input()
        with (
            raw_mode() if has_window and reads else nullcontext(),
            TerminalInput(terminal, reads=reads, has_window=has_window),
        ):
            for flow, data in terminal.output():
                write_all(2 if flow is Flow.ERROR else 1, data)
    if terminal.status is None:
        raise EngineFault("the command's end is not known; look at what it did")
    return terminal.status


def _launch(chosen_host: HostChoice, task_ref: str, command: tuple[str, ...], options: dict[str, Any]) -> int:
    if options["interactive"] or options["tty"]:
        raise click.UsageError("with --detach nobody is there to type; leave -i and -t out")
    start = _start(command[1:] if command[0] == "--" else command, options)
    task_id = task_id_of(chosen_host.client, task_ref)
    from kohakuriver.client.streams.terminal import Launch, launch

    launch(chosen_host.access(), task_id, Launch(start.argv, start.env, start.user, start.working_dir))
    return 0


def _start(command: tuple[str, ...], options: dict[str, Any]) -> "Start":
    from kohakuriver.client.streams.terminal import Start

    if not command or not command[0]:
        raise click.UsageError("there is no command to run")
    values = (*command, options["user"] or "", options["workdir"] or "")
    if not all(is_text(value) for value in values):
        raise click.UsageError("the command and the values of options must be valid UTF-8 text")
    rows, cols = window_size() if options["tty"] else (0, 0)
    return Start(
        argv=command,
        env=tuple(variables_of(options).items()),
        rows=rows,
        cols=cols,
        user=options["user"],
        working_dir=options["workdir"],
    )
