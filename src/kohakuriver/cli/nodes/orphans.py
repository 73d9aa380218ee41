"""`node leftovers`: orphans, work that a node holds under the name of another one that is unreachable."""

from typing import TYPE_CHECKING

import click

from kohakuriver.cli.completion import complete_nodes
from kohakuriver.cli.console.output import Records, Table, output_option, show
from kohakuriver.cli.console.plain_text import neutralised
from kohakuriver.cli.console.sizes import size_text
from kohakuriver.cli.host_choice import HostChoice, pass_host
from kohakuriver.models.enums import OrphanChoice
from kohakuriver.models.errors import NotFound

if TYPE_CHECKING:
    from kohakuriver.client.host_client import HostClient


@click.command("leftovers")
@click.argument("hostname", shell_complete=complete_nodes)
@click.option("--adopt", metavar="NODE", help="What stands under this name goes on as the node's own.")
@click.option("--end", metavar="NODE", help="What stands under this name is given up and ended.")
@output_option
@pass_host
def orphans(chosen_host: HostChoice, hostname: str, adopt: str | None, end: str | None, output: str) -> None:
    """Show the orphans of a node, what it holds under other names, or decide about them.

    They are there when a machine joined under a new name while its old work ran on. Their share is kept.
    Either decision takes the node of the old name out of the cluster.
    """
    if adopt is not None and end is not None:
        raise click.UsageError("--adopt and --end are two decisions; take one")
    choice = OrphanChoice.ADOPT if adopt is not None else OrphanChoice.END
    if name := adopt if adopt is not None else end:
        reply = chosen_host.client.nodes.decide_orphans(hostname, name, choice)
        print(neutralised(reply.value.message))
        return
    show(_orphan_records(chosen_host.client, hostname), output)


def _orphan_records(client: "HostClient", hostname: str) -> Records:
    reply = client.nodes.all()
    found = [pair for pair in zip(reply.value, reply.raw, strict=True) if pair[0].hostname == hostname]
    if not found:
        raise NotFound(f"there is no node {hostname}; `kohakuriver node list` shows them")
    item, raw = found[0]
    table = Table(
        headings=("UNDER", "TASK", "ATTEMPT", "STATE", "CORES", "MEMORY", "GPUS"),
        rows=[
            (
                each.node,
                str(each.task_id),
                str(each.attempt),
                each.status,
                str(each.cores),
                size_text(each.memory_bytes),
                ",".join(map(str, each.gpus)) or "-",
            )
            for each in item.leftovers
        ],
        state_column=3,
        empty=f"Node {hostname} holds nothing under another node's name.",
    )
    return Records(raw.get("leftovers", []), table, [str(each.task_id) for each in item.leftovers])
