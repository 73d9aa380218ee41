"""What this machine has, and how much of it is used: one sample each interval, kept until it was sent.

Reads /proc and /sys directly: a sample costs well below a millisecond. The roots are arguments, so that a
recorded tree of another machine can be read.
"""

import asyncio
import os
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from kohakuriver.models.resources import NumaNode
from kohakuriver.runner.monitor.amd import AmdSource
from kohakuriver.runner.monitor.gpu_source import GpuSampler, GpuSource
from kohakuriver.runner.monitor.numa import read_numa
from kohakuriver.runner.monitor.nvidia import NvidiaSource
from kohakuriver.runner.monitor.proc_figures import (
    CpuTimes,
    cpu_percent,
    parse_cpu_list,
    parse_cpu_times,
    parse_memory,
)
from kohakuriver.runner.monitor.temperature import find_cpu_sensors, read_temperatures
from kohakuriver.wire.messages import GpuInfo, NodeFigures

_KEPT_SAMPLES = 120
_SENSOR_SEARCH_SECONDS = 60.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SystemRoots:
    """Where the kernel's two trees are."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the machine has. A machine with a single NUMA node lists that one too."""

    cores: int
    memory_bytes: int
    numa: tuple[NumaNode, ...]
    gpus: list[GpuInfo]


class Monitor:
    """Samples the machine while `run` runs. All methods but `inventory` return at once."""

    def __init__(
        self,
        interval_seconds: float,
        numactl_path: str = "",
        roots: SystemRoots | None = None,
        gpu_sources: tuple[GpuSource, ...] | None = None,
    ) -> None:
        self._interval_seconds = interval_seconds
        self._numactl_path = numactl_path
        self._roots = roots or SystemRoots()
        if gpu_sources is None:
            gpu_sources = (NvidiaSource(self._roots.sys), AmdSource(self._roots.sys))
        self._gpus = GpuSampler(gpu_sources, interval_seconds)
        self._cpu_before: CpuTimes | None = None
        self._sensors: tuple[Path, ...] = ()
        self._sensors_found_at = float("-inf")
        self._latest: NodeFigures | None = None
        self._unsent: deque[NodeFigures] = deque(maxlen=_KEPT_SAMPLES)
        self._fault: str | None = None

    def inventory(self) -> Inventory:
        """Look at the machine now. Starts programs and may wait for drivers: call it in a thread."""
        cpus = self._online_cpus()
        memory = parse_memory((self._roots.proc / "meminfo").read_bytes())
        return Inventory(
            cores=len(cpus),
            memory_bytes=memory.total_bytes,
            numa=read_numa(self._roots.sys, self._numactl_path, cpus, memory.total_bytes),
            gpus=list(self._gpus.read().gpus),
        )

    async def run(self) -> None:
        """Take a sample each interval until cancelled; a sample that fails becomes a fault, not an end."""
        self._gpus.start()
        try:
            due = time.monotonic()
            while True:
                await asyncio.to_thread(self._sample_or_fault)
                due = max(due + self._interval_seconds, time.monotonic())
                await asyncio.sleep(due - time.monotonic())
        finally:
            self._gpus.stop()

    def latest(self) -> NodeFigures | None:
        """The newest sample; None until the second look at the CPU counters, one interval after the start."""
        return self._latest

    def drain(self) -> list[NodeFigures]:
        """Samples since the last call, oldest first; the oldest are dropped when nobody calls."""
        samples = list(self._unsent)
        self._unsent.clear()
        return samples

    def faults(self) -> list[str]:
        """Sentences about what cannot be read now."""
        return [*self._gpus.latest().faults, *([self._fault] if self._fault else [])]

    def sample(self) -> NodeFigures | None:
        """Read the machine once; None for the first time, when there is nothing to compare CPU time with."""
        cpu_now = parse_cpu_times(_read_head(self._roots.proc / "stat"))
        before, self._cpu_before = self._cpu_before, cpu_now
        if before is None:
            return None
        memory = parse_memory(_read_head(self._roots.proc / "meminfo"))
        temperatures = read_temperatures(self._current_sensors())
        return NodeFigures(
            at=datetime.now(UTC),
            cpu_percent=round(cpu_percent(before, cpu_now), 1),
            memory_percent=round(memory.used_percent, 1),
            memory_used_bytes=memory.used_bytes,
            memory_total_bytes=memory.total_bytes,
            current_avg_temp=round(temperatures[0], 1) if temperatures else None,
            current_max_temp=round(temperatures[1], 1) if temperatures else None,
            gpu_info=list(self._gpus.latest().gpus),
        )

    def _sample_or_fault(self) -> None:
        try:
            figures = self.sample()
        except (OSError, ValueError) as error:
            if self._fault is None:
                _log.warning("sample_failed", error=str(error))
            self._fault = f"the machine's figures cannot be read: {error}"
            return
        self._fault = None
        if figures is not None:
            self._latest = figures
            self._unsent.append(figures)

    def _current_sensors(self) -> tuple[Path, ...]:
        """Sensors come and go with drivers, so they are looked for again now and then."""
        if time.monotonic() - self._sensors_found_at > _SENSOR_SEARCH_SECONDS:
            self._sensors = find_cpu_sensors(self._roots.sys)
            self._sensors_found_at = time.monotonic()
        return self._sensors

    def _online_cpus(self) -> tuple[int, ...]:
        """CPUs of the machine, not of this process: workloads are the engine's children, not ours."""
        try:
            return parse_cpu_list((self._roots.sys / "devices/system/cpu/online").read_text())
        except OSError:
            return tuple(range(os.cpu_count() or 1))


def _read_head(path: Path) -> bytes:
    """The first 4 KiB, which hold all that is needed of files that grow with the number of CPUs."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
