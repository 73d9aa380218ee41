"""`status` and `version`: the cluster at a glance, and what is installed here."""

import click

from kohakuriver.cli.console.output import Records, has_colour, output_option, show, view_text
from kohakuriver.cli.console.plain_text import complain
from kohakuriver.cli.host_choice import HostChoice, pass_host

_NEWEST = 10
_LEFT_OUT = f"these are the newest {_NEWEST} tasks, and there are more; `kohakuriver task list` shows them"


@click.command()
@output_option
@pass_host
def status(chosen_host: HostChoice, output: str) -> None:
    """Show what the cluster has, its nodes, and its newest tasks."""
    from datetime import UTC, datetime

    from kohakuriver.cli.nodes.commands import node_table, summary_records
    from kohakuriver.cli.tasks.views import task_table

    nodes, tasks = chosen_host.client.nodes.all(), chosen_host.client.tasks.page(limit=_NEWEST + 1)
    newest = tasks.value[:_NEWEST]
    left_out = _LEFT_OUT if len(tasks.value) > _NEWEST else ""
    summary = summary_records(nodes.value)
    if output != "table":
        raw = {"summary": summary.raw, "nodes": nodes.raw, "tasks": tasks.raw[:_NEWEST]}
        show(Records(raw, summary.view, summary.names, left_out), output)
        return
    views = (summary.view, node_table(nodes.value, datetime.now(UTC)), task_table(newest, compact=False))
    print("\n\n".join(view_text(view, colour=has_colour()) for view in views), flush=True)
    if left_out:
        complain(left_out)


@click.command()
def version() -> None:
    """Print the version of what is installed here."""
    from kohakuriver import __version__

    print(f"kohakuriver, version {__version__}")
