"""The command `kohakuriver`: its table of commands and the options that say which host is meant.

Nothing heavy may be imported here: every `--help` and every completion pays for it.
"""

import sys

import click

from kohakuriver.cli.boundary import run_guarded
from kohakuriver.cli.host_choice import HostChoice
from kohakuriver.cli.lazy import LazyGroup

_COMMANDS = {
    "up": ("Start a whole cluster on this machine.", "kohakuriver.cli.local.up:up"),
    "down": ("End the cluster that `up` started.", "kohakuriver.cli.local.up:down"),
    "status": ("Show the cluster at a glance.", "kohakuriver.cli.overview:status"),
    "run": ("Run a command on the cluster and follow its output.", "kohakuriver.cli.tasks.run:run"),
    "connect": ("Open a shell in a running task or VPS.", "kohakuriver.cli.workloads.connect:connect"),
    "exec": (
        "Run a command in a running task or VPS.",
        "kohakuriver.cli.workloads.exec_command:exec_command",
    ),
    "terminal": ("Shells and commands, by other names.", "kohakuriver.cli.workloads.connect:terminal_group"),
    "task": ("Submit tasks, look at them, steer them.", "kohakuriver.cli.tasks.commands:task"),
    "vps": ("VPSs: create, stop, restart, snapshots.", "kohakuriver.cli.vps.commands:vps"),
    "ssh": ("SSH into VPSs; a configuration for SSH clients.", "kohakuriver.cli.vps.ssh:ssh"),
    "node": ("Look at the nodes, let new ones in.", "kohakuriver.cli.nodes.commands:node"),
    "forward": ("Have ports of a task or VPS here.", "kohakuriver.cli.workloads.forward:forward"),
    "cp": ("Copy files into and out of workloads.", "kohakuriver.cli.workloads.cp:cp"),
    "docker": (
        "Environments: containers on the host and tarballs.",
        "kohakuriver.cli.environments.commands:docker",
    ),
    "prune": ("Remove what has been kept for long enough.", "kohakuriver.cli.prune:prune"),
    "auth": ("Log in with a token; tokens.", "kohakuriver.cli.auth:auth"),
    "host": ("Run the host on this machine.", "kohakuriver.cli.daemons:host_command"),
    "runner": ("Run a runner on this machine.", "kohakuriver.cli.daemons:runner_command"),
    "backup": ("Back up the host's state, verify, restore.", "kohakuriver.cli.backup:backup"),
    "init": ("Write configuration files and systemd units.", "kohakuriver.cli.local.init:init_group"),
    "config": ("Show the settings; shell completion.", "kohakuriver.cli.config:config_group"),
    "version": ("Print the version.", "kohakuriver.cli.overview:version"),
}


@click.group(
    "kohakuriver",
    cls=LazyGroup,
    table=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("-H", "--host", metavar="HOST", help="Host to talk to: a name, an address or a URL.")
@click.option("-P", "--port", metavar="PORT", type=click.IntRange(1, 65535), help="Port of its API.")
@click.option(
    "-f",
    "--format",
    "output_format",
    type=click.Choice(["table", "json", "yaml", "name"]),
    help="Form of the output, for commands that print records; -o behind the command wins.",
)
@click.option("--host-fingerprint", metavar="SHA256:…", help="Key that the host must prove to have.")
@click.version_option(package_name="kohakuriver", prog_name="kohakuriver")
@click.pass_context
def root(
    ctx: click.Context,
    host: str | None,
    port: int | None,
    host_fingerprint: str | None,
    output_format: str | None,
) -> None:
    """KohakuRiver makes a few machines one computer: submit a command, it runs where there is room.

    The host is taken from --host and --port, else KOHAKURIVER_HOST and KOHAKURIVER_PORT, else
    ~/.kohakuriver/cli_config.py, else it is localhost:8000. The token is taken from KOHAKURIVER_TOKEN, else
    from that file, else from `auth login`; on the host's own machine it is found without any. It is sent
    after the host has proven that it has the key of --host-fingerprint, else of
    KOHAKURIVER_HOST_FINGERPRINT, of that file, or of the first contact.
    """
    chosen_host = HostChoice(host, port, host_fingerprint)
    chosen_host.output_format = output_format or chosen_host.output_format
    ctx.obj = chosen_host
    ctx.call_on_close(chosen_host.close)


def main() -> None:
    """Entry of the installed command; ends the process with the status of `boundary`."""
    sys.exit(run_guarded(root, "kohakuriver"))
