"""The lab for hands: `up` starts one that stays, `down` clears away what stands, `status` says what there is.

A process of its own keeps the lab and does what the other commands tell it over a socket: `cut n1`,
`mend n1`, `kill-runner n2`, `start-runner n2`, `slow n1 delay_ms=300`, `shift-clock host 3600` and so on.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import socketserver
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from socket import AF_UNIX, socket

from support.lab.lab import Lab
from support.lab.registry import LabRecord, all_labs, clear_away, processes_of
from support.machine.processes import began_at

COMMANDS = {
    name.replace("_", "-"): name
    for name in (
        *("kill_host", "stop_host", "start_host", "kill_runner", "stop_runner", "start_runner"),
        *("kill_dockerd", "stop_dockerd", "start_dockerd", "cut", "cut_port", "slow", "disturb", "mend"),
        *("fill_disk", "free_disk", "shift_clock", "leftovers"),
    )
}
_READY = "ready"
_USE_SECONDS = 120


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/lab.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start a lab that stays")
    up.add_argument("--nodes", type=int, default=3)
    commands.add_parser("keep").add_argument("--nodes", type=int)
    commands.add_parser("status", help="list the labs of this machine")
    down = commands.add_parser("down", help="clear away labs that were started by hand or abandoned")
    down.add_argument("--abandoned", action="store_true", help="only what killed processes left")
    for name in COMMANDS:
        commands.add_parser(name).add_argument("arguments", nargs="*", metavar="NODE|WHERE|NAME=VALUE")
    given = parser.parse_args()
    if given.command in COMMANDS:
        return _tell_keeper([given.command, *given.arguments])
    acts: dict[str, Callable[[], int]] = {
        "up": lambda: _up(given.nodes),
        "keep": lambda: _keep(given.nodes),
        "status": _status,
        "down": lambda: _down(given.abandoned),
    }
    return acts[given.command]()


def _up(nodes: int) -> int:
    if standing := [lab for lab in all_labs() if lab.kept]:
        print("a lab stands already; end it with: make lab-down")
        _show(standing[0])
        return 1
    keeper = subprocess.Popen(
        [sys.executable, sys.argv[0], "keep", "--nodes", str(nodes)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert keeper.stdout is not None
    with keeper.stdout as said:
        if said.readline().strip() != _READY:
            print("the lab did not come up; the reason stands above")
            return 1
    _show(next(lab for lab in all_labs() if lab.owner_pid == keeper.pid))
    return 0


def _keep(nodes: int) -> int:
    """Hold a lab until somebody ends this process; ends what was begun when it cannot be started."""
    lab = Lab(kept=True)
    try:
        lab.start(nodes)
        lab.record = replace(lab.record, use=lab.cli_environment())
        lab.record.save()
        with socketserver.UnixStreamServer(str(_socket_of(lab.record)), _handler(lab)) as server:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            print(_READY, flush=True)
            _let_go_of_terminal()
            server.serve_forever()
    finally:
        lab.stop()
    return 0


def _let_go_of_terminal() -> None:
    """Whoever waits for the end of what `up` writes would wait for the end of the lab."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nothing, stream.fileno())
    os.close(nothing)


def _handler(lab: Lab) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            try:
                answer = _do(lab, json.loads(self.rfile.readline()))
            except Exception as error:  # noqa: BLE001 - boundary of one command; whoever gave it is told
                answer = f"{type(error).__name__}: {error}"
            self.wfile.write(answer.encode())

    return Handler


def _do(lab: Lab, words: list[str]) -> str:
    """Carry one command out; `name=value` is a keyword with a number."""
    named = dict(word.split("=", 1) for word in words[1:] if "=" in word)
    plain = [word if not word.lstrip("-").isdigit() else float(word) for word in words[1:] if "=" not in word]
    act = getattr(lab, COMMANDS[words[0]])
    answer = act(*plain, **{name: int(value) for name, value in named.items()})
    return "\n".join(answer) if isinstance(answer, list) else ""


def _tell_keeper(words: list[str]) -> int:
    labs = [lab for lab in all_labs() if lab.kept]
    if not labs:
        print("no lab stands; start one with: make lab")
        return 1
    with socket(AF_UNIX) as line:
        line.settimeout(_USE_SECONDS)
        line.connect(str(_socket_of(labs[0])))
        line.sendall(json.dumps(words).encode() + b"\n")
        answer = line.makefile().read()
    if answer:
        print(answer)
    return 1 if "Error: " in answer else 0


def _status() -> int:
    for lab in all_labs():
        _show(lab)
    return 0


def _show(lab: LabRecord) -> None:
    whose = "started by hand" if lab.kept else "abandoned" if lab.is_abandoned() else "of a test that runs"
    print(f"lab {lab.lab_id}: {whose}, {len(processes_of(lab))} processes, files in {lab.root}")
    if lab.use:
        print("use it from a shell with:")
        print("  export", *(f"{name}={shlex.quote(value)}" for name, value in lab.use.items()))
        print("  .venv/bin/kohakuriver node list")


def _down(only_abandoned: bool) -> int:
    """Tests that run keep theirs."""
    for lab in all_labs():
        if lab.is_abandoned() or (lab.kept and not only_abandoned):
            if lab.kept and began_at(lab.owner_pid) == lab.owner_began_at:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(lab.owner_pid, signal.SIGKILL)
            clear_away(lab)
            print(f"lab {lab.lab_id} is gone")
    return 0


def _socket_of(lab: LabRecord) -> Path:
    return lab.scratch / "keeper.sock"


if __name__ == "__main__":
    sys.exit(main())
