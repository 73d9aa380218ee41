"""`prune`: what has been kept for long enough, shown or removed."""

from typing import TYPE_CHECKING

import click

from kohakuriver.cli.console.output import Records, Table, output_option, show
from kohakuriver.cli.host_choice import HostChoice, pass_host

if TYPE_CHECKING:
    from kohakuriver.client.records import Leftovers


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@output_option
@pass_host
def prune(chosen_host: HostChoice, dry_run: bool, output: str) -> int:
    """Remove what has been kept for as long as the host's KEEP_…_DAYS settings say (operators).

    The host does this by itself every hour; nothing goes that would not go then. What could not be removed is
    printed on standard error, and the exit status is 1.
    """
    from kohakuriver.cli.console.plain_text import complain
    from kohakuriver.cli.console.progress import progress

    with progress("Looking for what can go" if dry_run else "Removing what can go"):
        reply = chosen_host.client.leftovers() if dry_run else chosen_host.client.prune()
    names = [f"{item.place}/{item.kind}" for item in reply.value.items if item.count]
    show(Records(reply.raw, _table(reply.value), names), output)
    for fault in reply.value.faults:
        complain(f"{fault.place}: {fault.message}")
    return 1 if reply.value.faults else 0


def _table(found: "Leftovers") -> Table:
    from kohakuriver.cli.console.sizes import size_text

    return Table(
        headings=("WHAT", "WHERE", "COUNT", "SIZE", "KEPT FOR"),
        rows=[
            (
                item.kind,
                item.place,
                str(item.count),
                size_text(item.size_bytes),
                f"{item.kept_days}d" if item.kept_days else "ever",
            )
            for item in found.items
        ],
    )
