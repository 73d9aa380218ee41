"""`kohakuriver forward` as its user has it: a process, the addresses that it prints, Ctrl-C."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile

from support.cluster.cluster import BIN, Cluster, wait_for


class ForwardCommand:
    """One that runs. `said`: the lines of standard error so far."""

    def __init__(self, process: "subprocess.Popen[str]", ports: int) -> None:
        assert process.stdout is not None
        self.process = process
        self.said: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        lines = [process.stdout.readline() for _ in range(ports)]
        self.places = [_place_of(line) for line in lines if line]
        """Where it listens, in the order of its ports; fewer where it has ended."""

    @property
    def pid(self) -> int:
        return self.process.pid

    def connect(self, number: int = 0) -> socket.socket:
        return socket.create_connection(self.places[number], timeout=60)

    def await_said(self, text: str, times: int = 1) -> None:
        wait_for(lambda: sum(text in line for line in self.said) >= times, f"{text!r} from forward")

    def interrupt(self) -> int:
        """Press Ctrl-C; return its status."""
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(30)
        self._listener.join()
        return status

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip("\n"))


@contextmanager
def forwarding(cluster: Cluster, *arguments: str, files: int | None = None) -> Iterator[ForwardCommand]:
    """`arguments`: the workload, ports, then options. `files`: how many the user's shell lets it open."""
    ports = len(list(takewhile(lambda argument: not argument.startswith("-"), arguments[1:])))
    words = [str(BIN / "kohakuriver"), "forward", *arguments]
    process = subprocess.Popen(
        words if files is None else ["sh", "-c", f'ulimit -S -n {files} && exec "$@"', "sh", *words],
        env={**os.environ, "HOME": str(cluster.host_home), **cluster.cli_environment()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield ForwardCommand(process, ports)
        finally:
            process.kill()


def _place_of(line: str) -> tuple[str, int]:
    host, _, port = line.partition(" ")[0].rpartition(":")
    return host.strip("[]"), int(port)
