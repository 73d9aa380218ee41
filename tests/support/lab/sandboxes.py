"""What runs beside a lab's workloads: the client in a task's sandbox, and what it and others take."""

import json
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from support.lab.node import LabNode

_HELD = re.compile(r"skmem:\(r(\d+),\S*?,t(\d+),\S*?,w(\d+),")
_CALM_SECONDS = 1.0
_TIMERS_TICKS = 2


def client_beside(node: LabNode, task_id: str) -> "Measured":
    """The tunnel client in the sandbox of a command task."""
    shown = json.loads(node.docker.run("inspect", f"kohakuriver-task-{task_id}"))
    sandbox = shown[0]["HostConfig"]["NetworkMode"].removeprefix("container:")
    first = node.docker.run("inspect", "--format", "{{.State.Pid}}", sandbox).strip()
    (client,) = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return Measured(int(client))


@dataclass(frozen=True)
class Measured:
    """A process; memory in MiB, as the kernel counts it."""

    pid: int

    def forget_most(self) -> None:
        """Count the most memory anew from here on."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    @property
    def most_mib(self) -> int:
        return self._kib("VmHWM") >> 10

    @property
    def now_mib(self) -> int:
        return self._kib("VmRSS") >> 10

    def is_calm(self) -> bool:
        """Whether it does nothing but look at the time; takes a while."""
        before = self._ticks()
        time.sleep(_CALM_SECONDS)
        return self._ticks() - before <= _TIMERS_TICKS

    def kernel_mib(self, port: int) -> int:
        """What the kernel holds in its network of connections to a port, at the end that made them."""
        argv = ["nsenter", "--target", str(self.pid), "--net", "ss", "-tmnHO", "dport", "=", str(port)]
        lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
        return sum(sum(map(int, found.groups())) for line in lines if (found := _HELD.search(line))) >> 20

    def _ticks(self) -> int:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def _kib(self, name: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))
