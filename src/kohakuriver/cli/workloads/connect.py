"""`connect`: a shell in a workload, which waits on its node when the connection is lost."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from kohakuriver.cli.console.plain_text import complain
from kohakuriver.cli.console.shell import Escape, TerminalInput, check_terminal, raw_mode, window_size
from kohakuriver.cli.host_choice import HostChoice, pass_host
from kohakuriver.cli.tasks.commands import task_id_of, workload_argument
from kohakuriver.cli.workloads.exec_command import exec_command
from kohakuriver.descriptors import write_all
from kohakuriver.models.errors import Unavailable
from kohakuriver.pauses import growing_pauses

if TYPE_CHECKING:
    from kohakuriver.client.connection.host_trust import HostAccess

_KEPT_SECONDS = 1800.0
"""How long a node keeps a shell without a client."""

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 5.0


@click.command()
@workload_argument
@click.option("--session", "number", metavar="S", help="Come back to this shell instead of opening one.")
@pass_host
def connect(chosen_host: HostChoice, task_ref: str, number: str | None) -> int:
    """Open a shell in a running task or VPS; ends with the shell's exit status.

    A connection that is lost is made anew, to the same shell. `~.` at the beginning of a line leaves it as it
    is: it waits half an hour for `connect --session`.
    """
    check_terminal()
    task_id = task_id_of(chosen_host.client, task_ref)
    shell_client = _ShellClient(chosen_host.access(), task_id, number)
    return shell_client.stay()


@click.group("terminal")
def terminal_group() -> None:
    """Shells and commands in running tasks and VPSs."""


terminal_group.add_command(connect, "attach")
terminal_group.add_command(exec_command, "exec")


@dataclass
class _ShellClient:
    """Where the user is: `number` names the shell once it is known, `seen` what of it was shown here."""

    access: "HostAccess"
    task_id: str
    number: str | None
    seen: int = 0

    def stay(self) -> int:
        """Return the shell's exit status, or 0 when the user leaves it."""
        pauses = None
        give_up = time.monotonic() + _KEPT_SECONDS
        while True:
            before = self.seen
            try:
                status = self._attach()
            except Unavailable as error:
                if self.number is None:
                    raise
                if time.monotonic() > give_up:
                    raise Unavailable(f"{error}; {self._way_back()}") from error
            else:
                if status is None:
                    complain(f"left; {self._way_back()}")
                return status or 0
            if self.seen > before or pauses is None:
                pauses = growing_pauses(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, jitter=0)
                give_up = time.monotonic() + _KEPT_SECONDS
                complain(f"connection lost, trying again; Ctrl-C gives up ({self._way_back()})")
            time.sleep(next(pauses))

    def _attach(self) -> int | None:
        """Return the exit status, None when the user leaves."""
        from kohakuriver.client.streams.terminal import task_terminal

        escape = Escape()
        with task_terminal(self.access, self.task_id, self._query()) as terminal:
            try:
                with raw_mode(), TerminalInput(terminal, escape):
                    for _, data in terminal.output():
                        write_all(1, data)
            except Unavailable:
                if not escape.means_to_leave:
                    raise
                return None
            finally:
                self.number, self.seen = terminal.session or self.number, terminal.seen or self.seen
        return terminal.status or 0

    def _query(self) -> dict[str, Any]:
        rows, cols = window_size()
        place = {"session": self.number, "seen": self.seen} if self.number else {}
        return {"rows": rows, "cols": cols, **place}

    def _way_back(self) -> str:
        return f"`kohakuriver connect {self.task_id} --session {self.number}` comes back"
