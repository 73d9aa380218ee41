"""`node …`: the machines of the cluster, their load, and how new ones join."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from kohakuriver.cli.completion import complete_nodes
from kohakuriver.cli.console.output import Facts, Records, Table, output_option, show
from kohakuriver.cli.console.plain_text import neutralised
from kohakuriver.cli.console.sizes import age_text, size_text
from kohakuriver.cli.console.watching import show_repeatedly, watch_option
from kohakuriver.cli.host_choice import HostChoice, is_loopback, pass_host
from kohakuriver.cli.nodes.orphans import orphans
from kohakuriver.models.enums import NodeStatus
from kohakuriver.models.errors import NotFound
from kohakuriver.models.spec.amounts import exact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kohakuriver.client.host_client import HostClient
    from kohakuriver.client.records import HealthPoint, JoinToken, NodeRecord, TaskRecord

_WATCH_SECONDS = 2.0


@click.group()
def node() -> None:
    """Look at the nodes, let new ones in."""


@node.command("list")
@click.option(
    "-s",
    "--status",
    type=click.Choice([state.value for state in NodeStatus]),
    help="Only nodes in this state.",
)
@watch_option
@output_option
@pass_host
def list_nodes(chosen_host: HostChoice, status: str | None, watch: float | None, output: str) -> None:
    """List the nodes, those included that wait for approval."""
    show_repeatedly(lambda: _list_records(chosen_host.client, status), output, watch)


@node.command()
@click.argument("seconds", type=click.FloatRange(0.1, 3600), default=_WATCH_SECONDS)
@output_option
@pass_host
def watch(chosen_host: HostChoice, seconds: float, output: str) -> None:
    """Show the nodes again every few SECONDS until Ctrl-C."""
    show_repeatedly(lambda: _list_records(chosen_host.client), output, seconds)


@node.command()
@click.argument("hostname", shell_complete=complete_nodes)
@output_option
@pass_host
def status(chosen_host: HostChoice, hostname: str, output: str) -> None:
    """Show all that is known of one node, and of one that is being drained what it holds still."""
    from kohakuriver.cli.nodes.draining import tasks_left

    reply = chosen_host.client.nodes.all()
    for record, raw in zip(reply.value, reply.raw, strict=True):
        if record.hostname == hostname:
            held = tasks_left(chosen_host.client, hostname) if record.draining and output == "table" else []
            show(Records(raw, node_facts(record, datetime.now(UTC), held), [hostname]), output)
            return
    raise NotFound(f"there is no node {hostname}; `kohakuriver node list` shows them")


@node.command()
@click.argument("hostname", required=False, shell_complete=complete_nodes)
@watch_option
@output_option
@pass_host
def health(chosen_host: HostChoice, hostname: str | None, watch: float | None, output: str) -> None:
    """Show the load of one node or of all, with the minute's average."""
    show_repeatedly(lambda: _health_records(chosen_host.client, hostname), output, watch)


@node.command()
@watch_option
@output_option
@pass_host
def summary(chosen_host: HostChoice, watch: float | None, output: str) -> None:
    """Show what the whole cluster has, and how much of it is given out."""
    show_repeatedly(lambda: summary_records(chosen_host.client.nodes.all().value), output, watch)


@node.command()
@click.argument("hostname", shell_complete=complete_nodes)
@click.option("--fingerprint", help="Approve only if the node's key has this fingerprint.")
@pass_host
def approve(chosen_host: HostChoice, hostname: str, fingerprint: str | None) -> None:
    """Let a node in that waits, after comparing its fingerprint with the one that its runner logged."""
    message = chosen_host.client.nodes.approve(hostname, fingerprint).value.message
    print(neutralised(message or hostname))


@node.command()
@click.argument("hostname", shell_complete=complete_nodes)
@click.option("--fingerprint", help="Refuse only the one whose key has this fingerprint.")
@pass_host
def reject(chosen_host: HostChoice, hostname: str, fingerprint: str | None) -> None:
    """Refuse a node that waits; without a fingerprint, all that wait under the name."""
    message = chosen_host.client.nodes.reject(hostname, fingerprint).value.message
    print(neutralised(message or hostname))


@node.command()
@click.argument("hostname", shell_complete=complete_nodes)
@click.option("--move", is_flag=True, help="End tasks that were submitted with --retries, to run elsewhere.")
@click.option("--wait", is_flag=True, help="Return when nothing of the cluster's work is there any more.")
@pass_host
def drain(chosen_host: HostChoice, hostname: str, move: bool, wait: bool) -> None:
    """Give a node no new work; what runs there goes on. It stays so until `node undrain`."""
    from kohakuriver.cli.nodes.draining import wait_until_empty

    print(neutralised(chosen_host.client.nodes.drain(hostname, move).value.message), flush=True)
    if wait:
        wait_until_empty(chosen_host.client, hostname)


@node.command()
@click.argument("hostname", shell_complete=complete_nodes)
@pass_host
def undrain(chosen_host: HostChoice, hostname: str) -> None:
    """Give a drained node work again."""
    print(neutralised(chosen_host.client.nodes.undrain(hostname).value.message))


@node.command()
@click.argument("hostname", shell_complete=complete_nodes)
@click.option("--force", is_flag=True, help="Give up what runs there: it fails, or is retried if it may be.")
@pass_host
def remove(chosen_host: HostChoice, hostname: str, force: bool) -> None:
    """Take a node out of the cluster; its key and join token are worth nothing from then on."""
    print(neutralised(chosen_host.client.nodes.remove(hostname, force).value.message))


node.add_command(orphans)


@node.group("join-token")
def join_token() -> None:
    """Tokens with which runners enrol by themselves, as JOIN_TOKEN in runner_config.py."""


@join_token.command("create")
@click.option("--expires-hours", type=click.IntRange(1, 8760), default=24, show_default=True)
@output_option
@pass_host
def create_token(chosen_host: HostChoice, expires_hours: int, output: str) -> None:
    """Make a token and print it; it is shown this once and serves one node."""
    reply = chosen_host.client.nodes.create_join_token(expires_hours)
    if output == "table":
        print(neutralised(reply.value.token or ""))
        click.echo(_use_of(reply.value), err=True)
        return
    show(Records(reply.raw, Facts(()), [reply.value.token_id]), output)


def _use_of(made: "JoinToken") -> str:
    known = made.host_address and not is_loopback(made.host_address)
    address = repr(made.host_address) if known else "the address of the host's machine"
    where = f"HOST_ADDRESS = {neutralised(address)}, HOST_PORT = {made.host_port}"
    lines = [f"For the new node's runner_config.py: {where}, and this line as JOIN_TOKEN."]
    if made.host_address and not known:
        lines.append(
            f"The host says that it is at {neutralised(made.host_address)}, where no other machine "
            "reaches it: set HOST_BIND_IP and HOST_REACHABLE_ADDRESS in its host_config.py, and restart it."
        )
    return "\n".join(lines)


@join_token.command("list")
@output_option
@pass_host
def list_tokens(chosen_host: HostChoice, output: str) -> None:
    """List the tokens without their secrets."""
    reply = chosen_host.client.nodes.join_tokens()
    table = Table(
        headings=("ID", "BY", "CREATED", "EXPIRES", "USED"),
        rows=[
            (
                item.token_id,
                item.created_by or "-",
                _moment(item.created_at),
                _moment(item.expires_at),
                "yes" if item.used else "no",
            )
            for item in reply.value
        ],
        empty="No join tokens.",
    )
    show(Records(reply.raw, table, [item.token_id for item in reply.value]), output)


@join_token.command("delete")
@click.argument("token_id")
@pass_host
def delete_token(chosen_host: HostChoice, token_id: str) -> None:
    """Make a token worthless; nodes that joined with it stay."""
    print(neutralised(chosen_host.client.nodes.delete_join_token(token_id).value.message or token_id))


def _moment(at: datetime | None) -> str:
    return "-" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _list_records(client: "HostClient", status: str | None = None) -> Records:
    reply = client.nodes.all()
    wanted = None if status is None else NodeStatus(status)
    found = [
        (item, raw)
        for item, raw in zip(reply.value, reply.raw, strict=True)
        if wanted is None or item.status is wanted
    ]
    nodes = [item for item, _ in found]
    table = node_table(nodes, datetime.now(UTC))
    return Records([raw for _, raw in found], table, [item.hostname for item in nodes])


def node_table(nodes: "Sequence[NodeRecord]", now: datetime) -> Table:
    return Table(
        headings=("NODE", "STATE", "CORES", "MEMORY", "GPUS", "CPU", "MEM", "TEMP", "SEEN", "REMARK"),
        rows=[
            (
                item.hostname,
                item.status.value,
                f"{item.cores_used}/{item.total_cores}",
                f"{size_text(item.memory_used_by_tasks_bytes)}/{size_text(item.memory_total_bytes or None)}",
                f"{len(item.gpus_used or ())}/{len(item.gpu_info)}" if item.gpu_info else "-",
                _percent(item.cpu_percent),
                _percent(item.memory_percent),
                _degrees(item.current_max_temp),
                age_text(item.last_heartbeat, now),
                _remark(item),
            )
            for item in nodes
        ],
        state_column=1,
        empty="No nodes yet; `kohakuriver node join-token create` lets one in.",
    )


def _remark(item: "NodeRecord") -> str:
    if item.status is NodeStatus.PENDING:
        return f"waits for approval, {item.fingerprint or 'no fingerprint'}"
    if item.draining:
        return f"is being drained, {_tasks_text(item.tasks)}"
    if item.faults:
        more = f" (and {len(item.faults) - 1} more)" if len(item.faults) > 1 else ""
        return item.faults[0] + more
    if item.leftovers:
        return f"holds {len(item.leftovers)} of another node's workloads"
    if item.closed_reason and item.status is NodeStatus.ONLINE:
        return item.closed_reason
    if item.shared_storage in ("none", "foreign"):
        return f"shared storage: {item.shared_storage}"
    return "-"


def node_facts(item: "NodeRecord", now: datetime, held: "Sequence[TaskRecord]" = ()) -> Facts:
    memory = f"{size_text(item.memory_used_by_tasks_bytes)} of {size_text(item.memory_total_bytes)} given out"
    return Facts(
        [
            ("Node", item.hostname),
            ("State", item.status.value),
            ("Fingerprint", item.fingerprint or ""),
            ("Address", item.url or ""),
            (
                "Last heartbeat",
                f"{age_text(item.last_heartbeat, now)} ago" if item.last_heartbeat else "never",
            ),
            ("New work", f"none: it {item.closed_reason}" if item.closed_reason else ""),
            ("Draining", f"yes, {_tasks_text(item.tasks)}" if item.draining else ""),
            *((f"Task {task.task_id}", f"{task.status.value}: {task.command}") for task in held),
            ("Not listed", _not_listed(item, len(held)) if held else ""),
            *(("Fault", fault) for fault in item.faults or ()),
            *(("Notice", notice) for notice in item.notices or ()),
            ("Shared storage", item.shared_storage or ""),
            ("Cores", f"{item.cores_used} of {item.total_cores} given out"),
            ("Memory", memory),
            ("Memory in use", size_text(item.memory_used_bytes) if item.memory_used_bytes else ""),
            ("CPU load", _percent(item.cpu_percent)),
            ("Temperature", _degrees(item.current_max_temp)),
            ("NUMA nodes", str(len(item.numa_topology)) if item.numa_topology else ""),
            *(
                (f"GPU {gpu.gpu_id}", _gpu_text(gpu.name, gpu.memory_total_bytes, gpu.gpu_id, item.gpus_used))
                for gpu in item.gpu_info or ()
            ),
            ("VMs", "yes" if item.vm_capable else ""),
            ("Version", item.runner_version or ""),
        ]
    )


def _not_listed(item: "NodeRecord", listed: int) -> str:
    left_out = item.tasks - listed
    where = f"`kohakuriver task list -n {item.hostname}` and `kohakuriver vps list` show them"
    return f"{left_out} more tasks and VPSs; {where}" if left_out > 0 else ""


def _tasks_text(count: int) -> str:
    return (
        f"{count} {'task is' if count == 1 else 'tasks are'} still there"
        if count
        else "nothing is there any more"
    )


def _gpu_text(name: str, memory_bytes: int | None, index: int, used: list[int] | None) -> str:
    return f"{name}, {size_text(memory_bytes)}" + (", in use" if index in (used or ()) else "")


def _health_records(client: "HostClient", hostname: str | None) -> Records:
    if hostname is not None:
        latest = client.nodes.health_of(hostname)
        return Records(latest.raw, _health_table([(item, None) for item in latest.value]), [hostname])
    reply = client.nodes.health()
    seconds = reply.value.nodes
    rows = [
        (item, _average([point for second in seconds for point in second if point.hostname == item.hostname]))
        for item in (seconds[-1] if seconds else ())
    ]
    if reply.value.aggregate:
        rows.append((reply.value.aggregate[-1], _average(reply.value.aggregate)))
    return Records(reply.raw, _health_table(rows), [item.hostname for item, _ in rows if item.hostname])


def _average(points: "Sequence[HealthPoint]") -> float | None:
    known = [point.cpu_percent for point in points if point.cpu_percent is not None]
    return sum(known) / len(known) if known else None


def _health_table(rows: "Sequence[tuple[HealthPoint, float | None]]") -> Table:
    return Table(
        headings=("NODE", "CPU", "CPU 60s", "MEM", "MEMORY", "TEMP"),
        rows=[
            (
                item.hostname or "(all)",
                _percent(item.cpu_percent),
                _percent(average),
                _percent(item.memory_percent),
                f"{size_text(item.memory_used_bytes)}/{size_text(item.memory_total_bytes)}",
                _degrees(item.current_max_temp),
            )
            for item, average in rows
        ],
        empty="No figures of the last minute.",
    )


def summary_records(nodes: "Sequence[NodeRecord]") -> Records:
    online = [item for item in nodes if item.status is NodeStatus.ONLINE]
    memory = sum(item.memory_total_bytes or 0 for item in online)
    memory_used = sum(item.memory_used_by_tasks_bytes for item in online)
    totals = {
        "nodes": len(nodes),
        **{f"nodes_{state.value}": sum(item.status is state for item in nodes) for state in NodeStatus},
        "total_cores": sum(item.total_cores for item in online),
        "cores_used": exact(sum(item.cores_used for item in online)),
        "memory_total_bytes": memory,
        "memory_used_by_tasks_bytes": memory_used,
        "gpus": sum(len(item.gpu_info or ()) for item in online),
        "gpus_used": sum(len(item.gpus_used or ()) for item in online),
    }
    states = ", ".join(f"{totals[f'nodes_{state.value}']} {state.value}" for state in NodeStatus)
    facts = Facts(
        [
            ("Nodes", f"{len(nodes)} ({states})"),
            ("Cores", f"{totals['cores_used']} of {totals['total_cores']} given out"),
            ("Memory", f"{size_text(memory_used)} of {size_text(memory)} given out"),
            ("GPUs", f"{totals['gpus_used']} of {totals['gpus']} given out" if totals["gpus"] else ""),
        ]
    )
    return Records(totals, facts, [item.hostname for item in nodes])


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}%"


def _degrees(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}°C"
