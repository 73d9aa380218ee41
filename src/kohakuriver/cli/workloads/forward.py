"""`forward`: ports of a workload, on this machine."""

from typing import TYPE_CHECKING, Any

import click

from kohakuriver.cli.host_choice import HostChoice, pass_host
from kohakuriver.cli.tasks.commands import task_id_of, workload_argument
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.numbers import port_number

if TYPE_CHECKING:
    from kohakuriver.cli.workloads.forward_lines import Shown
    from kohakuriver.client.streams.forward import ForwardedPort

_PROTOCOLS = ("tcp", "udp")


@click.command()
@workload_argument
@click.argument("ports", metavar="[LOCAL:]PORT[/udp]…", nargs=-1, required=True)
@click.option("--local-host", default="127.0.0.1", show_default=True, help="Address to listen on here.")
@click.option(
    "--local-port",
    type=click.IntRange(0, 65535),
    help="Port to listen on here, if one PORT is given; 0: any that is free.",
)
@click.option("--proto", type=click.Choice(_PROTOCOLS), default="tcp", help="Of each PORT; tcp unless said.")
@click.option("--transfer", is_flag=True, help="Show how much was sent and received.")
@pass_host
def forward(
    chosen_host: HostChoice, task_ref: str, ports: tuple[str, ...], *, transfer: bool, **options: Any
) -> None:
    """Have ports of a running task or VPS on this machine, until Ctrl-C.

    PORT is what a program in the workload listens on, also on 127.0.0.1 there. Here it is the same port,
    LOCAL if one is given (0: any that is free). A connection to the host that is lost is made anew.
    """
    if options["local_port"] is not None and len(ports) > 1:
        raise click.UsageError("--local-port is for one PORT; write LOCAL:PORT for each of several")
    wanted = [read_port(text, **options) for text in ports]
    task_id = task_id_of(chosen_host.client, task_ref)
    from kohakuriver.client.streams.forward import PortForwarder, forward_ports

    forwarder = PortForwarder(chosen_host.access(), task_id, wanted, shown := _shown(transfer=transfer))
    chosen_host.close()
    try:
        forward_ports(forwarder)
    finally:
        shown.end(forwarder.transfer)


def read_port(
    text: str, local_host: str = "127.0.0.1", proto: str = "tcp", local_port: int | None = None
) -> "ForwardedPort":
    """Read `[LOCAL:]PORT[/tcp|/udp]`; `local_port` counts where LOCAL is not given. Raises InvalidInput."""
    from kohakuriver.client.streams.forward import ForwardedPort, Transport

    place, _, said = text.partition("/")
    local, colon, remote = place.rpartition(":")
    port = port_number(remote)
    own = 0 if local == "0" else port_number(local) if colon else local_port
    is_understood = port is not None and (own is not None or not colon) and (said or proto) in _PROTOCOLS
    if port is None or not is_understood or (local and local_port is not None):
        raise InvalidInput(
            f"{text[:60]!r} is no port to forward; write such as 8888, 8080:80, 0:80 or 5353/udp"
        )
    return ForwardedPort(Transport[(said or proto).upper()], port, local_host, port if own is None else own)


def _shown(*, transfer: bool) -> "Shown":
    from kohakuriver.cli.workloads.forward_lines import Shown

    return Shown(transfer=transfer)
