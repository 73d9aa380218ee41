"""What runs beside a lab's workloads: the client of a task's sandbox, and what it and others take."""

import json
from dataclasses import dataclass
from pathlib import Path

from support.lab.node import LabNode


def client_beside(node: LabNode, task_id: str) -> int:
    """The process of the tunnel client in the sandbox of a command task."""
    shown = json.loads(node.docker.run("inspect", f"kohakuriver-task-{task_id}"))
    sandbox = shown[0]["HostConfig"]["NetworkMode"].removeprefix("container:")
    first = node.docker.run("inspect", "--format", "{{.State.Pid}}", sandbox).strip()
    (client,) = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return int(client)


@dataclass(frozen=True)
class Taken:
    """The memory of a process, in MiB, as the kernel counts it."""

    pid: int

    def forget_peak(self) -> None:
        """Count the most anew from here on."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    @property
    def most(self) -> int:
        return self._kib("VmHWM") >> 10

    @property
    def now(self) -> int:
        return self._kib("VmRSS") >> 10

    def _kib(self, name: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))
