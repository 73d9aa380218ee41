"""`status` and `version`: the cluster at a glance, and what is installed here."""

import click

from kohakuriver.cli.output import Records, has_colour, output_option, show, view_text
from kohakuriver.cli.session import Session, pass_session

_NEWEST = 10


@click.command()
@output_option
@pass_session
def status(session: Session, output: str) -> None:
    """Show what the cluster has, its nodes, and its newest tasks."""
    from datetime import UTC, datetime

    from kohakuriver.cli.node import node_table, summary_records
    from kohakuriver.cli.task_views import task_table

    nodes, tasks = session.client.nodes.all(), session.client.tasks.page(limit=_NEWEST)
    summary = summary_records(nodes.value)
    if output != "table":
        raw = {"summary": summary.raw, "nodes": nodes.raw, "tasks": tasks.raw}
        show(Records(raw, summary.view, summary.names), output)
        return
    views = (summary.view, node_table(nodes.value, datetime.now(UTC)), task_table(tasks.value, compact=False))
    print("\n\n".join(view_text(view, colour=has_colour()) for view in views), flush=True)


@click.command()
def version() -> None:
    """Print the version of what is installed here."""
    from kohakuriver import __version__

    print(f"kohakuriver, version {__version__}")
