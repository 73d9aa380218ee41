"""`ssh`: into a VPS through the host's gateway, with the SSH client of this machine."""

import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from kohakuriver.cli.completion import complete_vps
from kohakuriver.cli.console.plain_text import complain, neutralised_lines
from kohakuriver.cli.host_choice import HostChoice, pass_host
from kohakuriver.models.enums import SshKeyMode
from kohakuriver.models.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from kohakuriver.cli.vps.ssh_files import GatewayPlace
    from kohakuriver.client.vps_records import VpsRecord

_ENTRY = "from kohakuriver.cli.main import main; main()"
_MOST_VPS = 1000
_OWN_WORDS = ("config", "connect", "-h", "--help")


class _SshGroup(click.Group):
    """`config` and `connect` are commands; anything else behind `ssh` is how to get into a VPS."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in _OWN_WORDS:
            args = ["session", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Commands, options, and the names of VPSs."""
        names = complete_vps(ctx, click.Argument(["vps_ref"]), incomplete)
        return super().shell_complete(ctx, incomplete) + names

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[-i FILE] [-l USER] ID [ARGUMENTS…]"]


@click.group(cls=_SshGroup)
def ssh() -> None:
    """SSH into a VPS through the host's gateway, with this machine's own `ssh`.

    ID is a VPS's id, any ending of it that no other id has, or the VPS's name. ARGUMENTS go to ssh as
    they are: its options (-L 8080:localhost:80), or a command. -i names the private key's file, -l the user
    (root, if not said). The key that `vps create` wrote for the VPS is found by itself. `ssh config`
    tells other SSH clients the same: scp, rsync, editors.
    """


@ssh.command("session", hidden=True, context_settings={"allow_interspersed_args": False})
@click.option("-i", "--identity", metavar="FILE", type=click.Path(exists=True, path_type=Path))
@click.option("-l", "--login", metavar="USER", default="root")
@click.option("--proxy", is_flag=True, help="Carry a connection on standard input and output (ProxyCommand).")
@click.argument("vps_ref", metavar="ID", shell_complete=complete_vps)
@click.argument("arguments", metavar="[ARGUMENTS]…", nargs=-1, type=click.UNPROCESSED)
@pass_host
def to_vps(
    chosen_host: HostChoice,
    vps_ref: str,
    arguments: tuple[str, ...],
    identity: Path | None,
    login: str,
    proxy: bool,
) -> None:
    """Log in to VPS ID, or run ssh with further ARGUMENTS on it."""
    if proxy:
        _pipe(chosen_host, _gateway(chosen_host), vps_ref)
        return
    log_in(chosen_host, vps_ref, LogIn(identity, login, arguments))


@ssh.command("connect")
@click.argument("vps_ref", metavar="ID", shell_complete=complete_vps)
@click.option(
    "-i", "--key", metavar="FILE", type=click.Path(exists=True, path_type=Path), help="Private key."
)
@click.option("-l", "--user", metavar="USER", default="root", show_default=True, help="User in the VPS.")
@click.option("--proxy-port", type=click.IntRange(1, 65535), help="Port of the host's SSH gateway.")
@click.option("--local-port", type=click.IntRange(0, 65535), hidden=True)
@pass_host
def connect(
    chosen_host: HostChoice,
    vps_ref: str,
    key: Path | None,
    user: str,
    proxy_port: int | None,
    local_port: int | None,
) -> None:
    """Log in to VPS ID, as `kohakuriver ssh ID` does."""
    if local_port is not None:
        raise click.UsageError(
            "no port of this machine is needed: leave --local-port out "
            "(`kohakuriver ssh ID -L …` forwards one)"
        )
    chosen_host.proxy_port = proxy_port
    log_in(chosen_host, vps_ref, LogIn(key, user))


@dataclass(frozen=True, slots=True)
class LogIn:
    """How somebody logs in: with which key (None: the one that was made for the VPS, else ssh's own)."""

    identity: Path | None = None
    user: str = "root"
    arguments: tuple[str, ...] = ()


def log_in(chosen_host: HostChoice, vps_ref: str, how: LogIn) -> None:
    """Become this machine's `ssh`, on its way into the VPS."""
    from kohakuriver.cli.vps.references import vps_of
    from kohakuriver.cli.vps.ssh_files import checked_id, remember_hosts, ssh_options

    gateway = _gateway(chosen_host)
    record = vps_of(chosen_host.client, vps_ref)
    if record.ssh_key_mode is SshKeyMode.DISABLED:
        raise Conflict(
            f"VPS {record.task_id} was made without SSH; "
            f"`kohakuriver connect {record.task_id}` opens a shell in it"
        )
    remember_hosts(gateway, [record], all_of_them=False)
    task_id = checked_id(record)
    argv = ["ssh"]
    proxy_command = [*_proxy_command(chosen_host), task_id]
    for name, value in ssh_options(record, how.user, proxy_command, how.identity or _made_key(record)):
        argv += ["-o", f"{name}={value}"]
    chosen_host.close()
    _become([*argv, f"vps-{task_id}", *how.arguments])


@ssh.command("config")
@click.option("--write", is_flag=True, help="Write it to ~/.kohakuriver/ssh_config instead of printing it.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write it to this file instead.",
)
@click.option(
    "-i",
    "--identity",
    metavar="FILE",
    type=click.Path(exists=True, path_type=Path),
    help="Private key to use with every VPS that takes keys.",
)
@pass_host
def config(chosen_host: HostChoice, write: bool, output: Path | None, identity: Path | None) -> None:
    """Print a configuration with which any SSH client reaches the VPSs: ssh, scp, rsync, editors.

    VPSs that you may use go by their names and by vps-ID. Their host keys, and the gateway's, are written
    to ~/.kohakuriver/known_hosts, so that no client has to ask whether to trust one. Keys that `vps create`
    made are named in it.
    """
    from kohakuriver.cli.vps.ssh_files import config_text, folder, remember_hosts, write_whole

    gateway = _gateway(chosen_host)
    records = chosen_host.client.vps.page(limit=_MOST_VPS, usable=True).value
    if chosen_host.client.vps.page(1, offset=_MOST_VPS).value:
        complain(f"only the newest {_MOST_VPS} VPSs were looked at; `kohakuriver ssh ID` reaches all")
    proxy_command = _proxy_command(chosen_host)
    chosen = identity.absolute() if identity else None
    text = config_text(gateway, records, proxy_command, lambda record: chosen or _made_key(record))
    remember_hosts(gateway, records, all_of_them=True)
    if not write and output is None:
        print(neutralised_lines(text), end="")
        return
    path = output.absolute() if output else folder() / "ssh_config"
    write_whole(path, text)
    print(f"Wrote {path}. Put this line at the top of ~/.ssh/config:\n\nInclude {path}")


def _gateway(chosen_host: HostChoice) -> "GatewayPlace":
    """The gateway is on the host that the command line talks to, whatever that host takes for its address."""
    from kohakuriver.cli.vps.ssh_files import GatewayPlace, checked_key

    told = chosen_host.client.vps.gateway().value
    host = urlsplit(chosen_host.access().url).hostname or told.host
    return GatewayPlace(host, chosen_host.ssh_gateway_port() or told.port, checked_key(told.host_key))


def _pipe(chosen_host: HostChoice, gateway: "GatewayPlace", ref: str) -> None:
    from kohakuriver.client.streams.ssh_pipe import GatewayAddress, pipe_to_vps

    if gateway.host_key is None:
        raise InvalidInput("the host does not tell the key of its SSH gateway; is it of this version?")
    address = GatewayAddress(gateway.host, gateway.port, gateway.host_key, chosen_host.access().token)
    chosen_host.close()
    pipe_to_vps(address, ref)


def _proxy_command(chosen_host: HostChoice) -> list[str]:
    """How an SSH client reaches a VPS by this program, without its id."""
    program = Path(sys.argv[0])
    runs_as_file = program.is_file() and os.access(program, os.X_OK)
    own = [str(program.absolute())] if runs_as_file else [sys.executable, "-c", _ENTRY]
    said = chosen_host.ssh_gateway_port()
    port = ["env", f"KOHAKURIVER_SSH_PROXY_PORT={said}"] if said else []
    known = chosen_host.said_fingerprint()
    proof = ["--host-fingerprint", known] if known else []
    return [*port, *own, "--host", chosen_host.access().url, *proof, "ssh", "--proxy"]


def _made_key(record: "VpsRecord") -> Path | None:
    """The key that `vps create` made for the VPS and wrote on this machine."""
    from kohakuriver.cli.vps.key_file import keys_folder

    names = [name for name in (record.name, record.task_id) if name and Path(name).name == name]
    return next((path for name in names if (path := keys_folder() / name).is_file()), None)


def _become(argv: list[str]) -> None:
    """Go on as another program, to which terminal and signals then belong."""
    program = shutil.which(argv[0])
    if program is None:
        raise InvalidInput("this machine has no `ssh`; install an OpenSSH client (openssh-client)")
    sys.stdout.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execv(program, argv)  # noqa: S606 - an argument vector, no shell
