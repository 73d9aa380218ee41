"""`vps connect`: a shell in a VPS, over the host's API or, with a key, by SSH."""

from pathlib import Path

import click

from kohakuriver.cli.host_choice import HostChoice, pass_host
from kohakuriver.cli.tasks.commands import workload_argument
from kohakuriver.cli.workloads.connect import connect


@click.command("connect")
@workload_argument
@click.option("--session", "number", metavar="S", help="Come back to this shell instead of opening one.")
@click.option(
    "-i",
    "--key",
    metavar="FILE",
    type=click.Path(exists=True, path_type=Path),
    help="Log in by SSH with this private key, as `kohakuriver ssh -i FILE ID` does.",
)
@click.pass_context
@pass_host
def vps_connect(
    chosen_host: HostChoice, context: click.Context, task_ref: str, number: str | None, key: Path | None
) -> int:
    """Open a shell in a running VPS; ends with the shell's exit status.

    Without a key it goes over the host's API and works in VPSs without SSH, too: see `connect`.
    """
    if key is None:
        status: int = context.invoke(connect, task_ref=task_ref, number=number)
        return status
    if number is not None:
        raise click.UsageError("--session is for shells over the host's API, which take no --key")
    from kohakuriver.cli.vps.ssh import LogIn, log_in

    log_in(chosen_host, task_ref, LogIn(identity=key))
    return 0
