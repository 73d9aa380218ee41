"""`run`: a command on the cluster as if it ran here."""

from typing import Any

import click

from kohakuriver.cli.console.plain_text import neutralised
from kohakuriver.cli.host_choice import HostChoice, pass_host
from kohakuriver.cli.tasks.standard_input import Forwarding, check_streamed, own_input
from kohakuriver.cli.tasks.submission import COMMAND_SETTINGS, build_submission, run_options


@click.command(context_settings=COMMAND_SETTINGS)
@run_options
@click.option(
    "-n/--stdin",
    "--no-stdin/",
    "no_stdin",
    default=None,
    help="Whether standard input is left alone, or handed on in any case. By itself a pipe or file is.",
)
@click.option("-d", "--detach", is_flag=True, help="Print the task's id and leave it to itself.")
@pass_host
def run(
    chosen_host: HostChoice, command: tuple[str, ...], no_stdin: bool | None, detach: bool, **options: Any
) -> int:
    """Run COMMAND on the cluster, follow its output and end with its exit status.

    Standard input that is a pipe or a file is COMMAND's own; in a loop that reads a pipe, -n leaves it to the
    loop. A COMMAND that is the plain name of a script of this folder is sent along and run (--no-script).

    A task that is killed or runs out of memory gives 137; one that never ran gives 1 and says why.
    Ctrl-C asks whether to kill the task or to let it run on; without a terminal, and on SIGTERM, it runs on.
    """
    if len(options["targets"]) > 1:
        raise click.UsageError("run follows one task; several targets are for `kohakuriver task submit`")
    given = own_input(None if no_stdin is None else not no_stdin)
    if given.streams:
        check_streamed(detach=detach, retries=options["retries"])
    submitted = chosen_host.client.tasks.submit(build_submission(command, options, given)).value
    if detach:
        print("\n".join(map(neutralised, submitted.task_ids)))
        return 0
    from kohakuriver.cli.tasks.following import follow_to_end

    forwarding = Forwarding(chosen_host, submitted.task_ids[0], given)
    forwarding.begin()
    status = follow_to_end(chosen_host.client, submitted.task_ids[0])
    forwarding.say_what_is_missing()
    return status
