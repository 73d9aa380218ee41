"""`run`: a command on the cluster as if it ran here."""

from typing import Any

import click

from kohakuriver.cli.plain_text import neutralised
from kohakuriver.cli.session import Session, pass_session
from kohakuriver.cli.submission import COMMAND_SETTINGS, build_submission, run_options


@click.command(context_settings=COMMAND_SETTINGS)
@run_options
@click.option("-d", "--detach", is_flag=True, help="Print the task's id and leave it to itself.")
@pass_session
def run(session: Session, command: tuple[str, ...], detach: bool, **options: Any) -> int:
    """Run COMMAND on the cluster, follow its output and end with its exit status.

    A task that is killed or runs out of memory gives 137; one that never ran gives 1 and says why.
    Ctrl-C asks whether to kill the task or to let it run on; without a terminal, and on SIGTERM, it runs on.
    """
    if len(options["targets"]) > 1:
        raise click.UsageError("run follows one task; several targets are for `kohakuriver task submit`")
    submitted = session.client.tasks.submit(build_submission(command, options)).value
    if detach:
        print("\n".join(map(neutralised, submitted.task_ids)))
        return 0
    from kohakuriver.cli.following import follow_to_end

    return follow_to_end(session.client, submitted.task_ids[0])
