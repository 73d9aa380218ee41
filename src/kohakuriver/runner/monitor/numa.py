"""The machine's NUMA nodes: from `numactl --hardware`, else from sysfs, else one node with everything.

Nodes without a CPU (memory expanders, GPUs that bring their own memory) are left out: nothing can be pinned
to them.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import structlog

from kohakuriver.models.resources import NumaNode
from kohakuriver.oom_score import expendable
from kohakuriver.runner.monitor.proc_figures import parse_cpu_list

_CPUS = re.compile(r"^node (\d+) cpus:([ \d]*)$", re.MULTILINE)
_SIZE = re.compile(r"^node (\d+) size: (\d+) MB$", re.MULTILINE)
_NODE_TOTAL = re.compile(r"MemTotal:\s+(\d+) kB")
_TIMEOUT_SECONDS = 10
_log = structlog.get_logger(__name__)


def parse_numactl(hardware: str) -> tuple[NumaNode, ...]:
    """Read the output of `numactl --hardware`; empty when it lists no node. numactl's MB are MiB."""
    sizes = {int(match[1]): int(match[2]) << 20 for match in _SIZE.finditer(hardware)}
    nodes = (
        NumaNode(int(match[1]), tuple(sorted(map(int, match[2].split()))), sizes.get(int(match[1]), 0))
        for match in _CPUS.finditer(hardware)
    )
    return _usable(nodes)


def read_sysfs_numa(sys_root: Path) -> tuple[NumaNode, ...]:
    """Read `devices/system/node` under the given root of sysfs; empty where the kernel has none."""
    nodes = []
    for folder in (sys_root / "devices/system/node").glob("node[0-9]*"):
        try:
            cpus = parse_cpu_list((folder / "cpulist").read_text())
            total = _NODE_TOTAL.search((folder / "meminfo").read_text())
            nodes.append(NumaNode(int(folder.name[4:]), cpus, int(total[1]) << 10 if total else 0))
        except (OSError, ValueError) as error:
            _log.warning("numa_node_unreadable", path=str(folder), error=str(error))
    return _usable(nodes)


def read_numa(
    sys_root: Path, numactl_path: str, cpus: tuple[int, ...], memory_bytes: int
) -> tuple[NumaNode, ...]:
    """Return the nodes by number, never none. `numactl_path` "": the one on PATH, if there is one.

    A single node gets the machine's CPUs and memory: its own count is off where memory is plugged in later.
    """
    nodes = parse_numactl(_numactl_output(numactl_path)) or read_sysfs_numa(sys_root)
    if len(nodes) > 1:
        return nodes
    return (NumaNode(nodes[0].id if nodes else 0, cpus, memory_bytes),)


def _numactl_output(numactl_path: str) -> str:
    program = numactl_path or shutil.which("numactl")
    if not program:
        return ""
    try:
        result = subprocess.run(
            expendable(program, "--hardware"),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
        _log.warning("numactl_failed", program=program, error=str(error))
        return ""
    return result.stdout


def _usable(nodes: Iterable[NumaNode]) -> tuple[NumaNode, ...]:
    return tuple(sorted((node for node in nodes if node.cpus), key=lambda node: node.id))
