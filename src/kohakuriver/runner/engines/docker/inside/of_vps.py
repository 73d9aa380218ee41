"""What the container of a VPS has that a task's has not: a first process of ours, and where it lies.

An image of a VPS may hold no shell, no `sleep` and no tools, so they come from a folder of the runner's
that every VPS sees read-only. A VPS's SSH files lie outside of what it can write, and outside of what
a snapshot keeps.
"""

from pathlib import Path

from kohakuriver.models.spec.mounts import Mount
from kohakuriver.runner.engines.contract.spec import WorkloadSpec

TOOLS = "/.kohakuriver"
BUSYBOX = f"{TOOLS}/busybox"
SSH_SETUP = f"{TOOLS}/ssh_setup.sh"
SSH_FOLDER = "/etc/ssh/kohakuriver"
FIRST_PROCESS = (BUSYBOX, "sleep", "2147483647")
USER = "0:0"


def first_process(spec: WorkloadSpec) -> tuple[str, ...]:
    """Argument vector of what the engine's init starts."""
    return spec.argv if spec.session is None else FIRST_PROCESS


def tools_mount(tools: Path) -> Mount:
    return Mount(str(tools), TOOLS, read_only=True)


def vps_mounts(tools: Path, ssh_files: Path) -> tuple[Mount, ...]:
    return (tools_mount(tools), Mount(str(ssh_files), SSH_FOLDER, read_only=True))
