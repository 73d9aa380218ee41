"""Completion of names from the host: quick, and silent when the host is unreachable or refuses."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from kohakuriver.cli.host_choice import HostChoice
from kohakuriver.models.errors import KohakuRiverError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from kohakuriver.client.host_client import HostClient
    from kohakuriver.client.vps_records import VpsRecord

_LATEST = 50


def complete_tasks(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Names and ids of the latest tasks."""
    return _matching(ctx, incomplete, _task_names)


def complete_vps(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Names and ids of the latest VPSs."""
    return _matching(ctx, incomplete, lambda client: _vps_names(client.vps.page(limit=_LATEST).value))


def complete_workloads(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Names and ids of the VPSs that run, and of the latest tasks."""
    return _matching(
        ctx, incomplete, lambda client: [*_vps_names(client.vps.active().value), *_task_names(client)]
    )


def _task_names(client: "HostClient") -> Iterable[tuple[str, str]]:
    for task in client.tasks.page(limit=_LATEST).value:
        about = " ".join((task.status.value, task.command, *task.arguments))[:60]
        yield task.task_id, about
        if task.name:
            yield task.name, about


def _vps_names(records: "Iterable[VpsRecord]") -> Iterable[tuple[str, str]]:
    for vps in records:
        about = f"VPS, {vps.status.value}"
        yield vps.task_id, about
        if vps.name:
            yield vps.name, about


def complete_nodes(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    return _matching(
        ctx,
        incomplete,
        lambda client: [(node.hostname, node.status.value) for node in client.nodes.all().value],
    )


def complete_environments(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    return _matching(
        ctx, incomplete, lambda client: [(item.name, "") for item in client.environments.tarballs().value]
    )


def complete_containers(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    return _matching(
        ctx,
        incomplete,
        lambda client: [(item.environment, item.status) for item in client.environments.containers().value],
    )


def _matching(
    ctx: click.Context, incomplete: str, names: "Callable[[HostClient], Iterable[tuple[str, str]]]"
) -> "list[CompletionItem]":
    from click.shell_completion import CompletionItem

    from kohakuriver.cli.console.plain_text import neutralised

    root = ctx.find_root().params
    chosen_host = HostChoice(
        root.get("host"), root.get("port"), root.get("host_fingerprint"), first_contact=False
    )
    try:
        found = [(name, about) for name, about in names(chosen_host.client) if name.startswith(incomplete)]
    except (KohakuRiverError, click.ClickException):
        return []
    finally:
        chosen_host.close()
    return [CompletionItem(neutralised(name), help=neutralised(about)) for name, about in found]
