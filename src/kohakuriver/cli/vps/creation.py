"""`vps create`: what is asked for, where a generated key goes, and how to get in."""

import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kohakuriver.cli import params
from kohakuriver.cli.completion import complete_nodes
from kohakuriver.cli.console.output import Facts, Records, output_option, show
from kohakuriver.cli.console.plain_text import neutralised_lines
from kohakuriver.cli.host_choice import HostChoice, pass_host
from kohakuriver.cli.tasks.container_options import container_fields
from kohakuriver.cli.tasks.environment_words import variables_of
from kohakuriver.cli.tasks.submission import WORKLOAD_OPTIONS, check_options
from kohakuriver.cli.vps.ssh_choice import SSH_OPTIONS, SshChoice, ssh_choice
from kohakuriver.models.enums import SshKeyMode
from kohakuriver.models.errors import KohakuRiverError

if TYPE_CHECKING:
    from kohakuriver.client.host_client import HostClient
    from kohakuriver.client.records import Reply
    from kohakuriver.client.vps_records import CreatedVps, VpsCreation, VpsRecord

_MIB = 1 << 20
_STANDARD_OUTPUT = "-"

_OPTIONS = (
    click.option(
        "-t",
        "--target",
        type=params.ONE_TARGET,
        shell_complete=complete_nodes,
        help="Node to run on, as NODE[:NUMA][::GPU,GPU…].",
    ),
    *WORKLOAD_OPTIONS,
    *SSH_OPTIONS,
    click.option("-b", "--backend", type=click.Choice(["docker", "qemu"]), help="What it runs in."),
    click.option("--vm-image", metavar="NAME", help="Base image of a virtual machine."),
    click.option("--vm-disk", metavar="SIZE", help="Disk of a virtual machine."),
    click.option("--vm-memory", type=params.MEMORY, help="Memory of a virtual machine."),
    click.option("-w", "--wait/--no-wait", default=True, help="Return when one can get in, or at once."),
)


def creation_options(function: Any) -> Any:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True)
class _Made:
    """A VPS that was created; `record` is there once it has come to run."""

    name: str | None
    reply: "Reply[CreatedVps]"
    key_file: Path | None
    awaited: bool
    record: "Reply[VpsRecord] | None" = None


@click.command()
@click.argument("name", metavar="[NAME]", type=params.VPS_NAME, required=False)
@creation_options
@output_option
@pass_host
def create(chosen_host: HostChoice, name: str | None, wait: bool, output: str, **options: Any) -> None:
    """Create a VPS and wait until one can get in. Ctrl-C ends the waiting, not the VPS.

    Without any of the options about SSH there are shells (`kohakuriver connect`) and no SSH. --ssh takes your
    own key, ~/.ssh/id_ed25519.pub (or ecdsa, rsa); if there is none, a key is made, as with --gen-ssh-key.
    """
    from kohakuriver.cli.vps.waiting import await_running

    check_options(options)
    choice = ssh_choice(options)
    prints_key = choice.key_out == _STANDARD_OUTPUT and output in ("table", "name")
    reply, key_file = _create(chosen_host.client, _creation(name, choice, options), choice, prints_key)
    made = _Made(name, reply, key_file, awaited=wait)
    try:
        if wait:
            made = replace(made, record=await_running(chosen_host.client, reply.value.task_id))
    finally:
        # Also when it does not come to run: it is there, and so is its key.
        with redirect_stdout(sys.stderr) if prints_key else nullcontext():
            show(_shown(made, choice), output)


def _creation(name: str | None, choice: SshChoice, options: dict[str, Any]) -> "VpsCreation":
    from kohakuriver.client.vps_records import VpsCreation

    target, vm_memory_bytes = options["target"], options["vm_memory"]
    return VpsCreation(
        name=name,
        required_cores=options["cores"],
        required_memory_bytes=options["memory"],
        required_gpus=list(target.gpus) if target else [],
        target_hostname=target.hostname if target else None,
        target_numa_node_id=target.numa_node if target else None,
        container_name=options["container"],
        registry_image=options["image"],
        pull=options["pull"],
        ssh_key_mode=choice.mode,
        ssh_public_keys=list(choice.public_keys),
        env_vars=variables_of(options),
        privileged=options["privileged"] or None,
        capabilities=list(options["cap_add"]),
        additional_mounts=list(options["mount"]),
        **container_fields(options),
        vps_backend=options["backend"],
        vm_image=options["vm_image"],
        vm_disk_size=options["vm_disk"],
        memory_mb=-(-vm_memory_bytes // _MIB) if vm_memory_bytes is not None else None,
    )


def _create(
    client: "HostClient", creation: "VpsCreation", choice: SshChoice, prints_key: bool
) -> "tuple[Reply[CreatedVps], Path | None]":
    """Create it; a key that is made for it is written, or printed, before anything else can fail."""
    if choice.mode is not SshKeyMode.GENERATE:
        return client.vps.create(creation), None
    if choice.key_out == _STANDARD_OUTPUT:
        reply = client.vps.create(creation)
        if prints_key:
            print(neutralised_lines(_private_key(reply.value).rstrip("\n")), flush=True)
        return reply, None
    from kohakuriver.cli.vps.key_file import keys_folder, reserved_key_file

    usual = keys_folder() / creation.name if creation.name else None
    place = Path(choice.key_out).absolute() if choice.key_out else usual
    with reserved_key_file(place, overwrite=choice.overwrite) as file:
        reply = client.vps.create(creation)
        task_id = reply.value.task_id
        try:
            return reply, file.write(_private_key(reply.value), task_id)
        except OSError as error:
            raise KohakuRiverError(
                f"VPS {task_id} was created, but its key could not be written ({error.strerror}) and is "
                f"lost; `kohakuriver vps kill {task_id}`, then create another one"
            ) from error


def _private_key(created: "CreatedVps") -> str:
    if created.ssh_private_key is None:
        raise KohakuRiverError(
            f"VPS {created.task_id} was created, but the host sent no key for it; is it of this version?"
        )
    return created.ssh_private_key


def _shown(made: _Made, choice: SshChoice) -> Records:
    """The host's answer and, of a VPS that runs, its record. A private key goes where it was sent to."""
    raw = {**made.reply.raw, **(made.record.raw if made.record else {})}
    if choice.key_out != _STANDARD_OUTPUT:
        raw.pop("ssh_private_key", None)
    if made.key_file:
        raw["ssh_private_key_file"] = str(made.key_file)
    return Records(raw, _facts(made), [made.reply.value.task_id])


def _facts(made: _Made) -> Facts:
    created, record = made.reply.value, made.record.value if made.record else None
    lines = [("VPS", created.task_id), ("Name", made.name or "")]
    if record is not None:
        lines += [("State", record.status.value), ("Notice", record.notice or "")]
        lines += [("Node", record.assigned_node or ""), ("Address", record.address or "")]
    elif not made.awaited:
        lines.append(("Message", created.message))
    lines.append(("Key", str(made.key_file) if made.key_file else ""))
    if record is not None or not made.awaited:
        reached_by = made.name or created.task_id
        lines.append(("Shell", f"kohakuriver connect {reached_by}"))
        lines.append(("SSH", f"kohakuriver ssh {reached_by}" if created.ssh_port is not None else ""))
    return Facts(lines)
