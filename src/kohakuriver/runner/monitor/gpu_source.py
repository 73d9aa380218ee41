"""What every source of GPU figures gives, and the thread that asks them.

A driver can hang for minutes. So GPUs are read in a thread of their own, which the rest of the monitor never
waits for; what it said last carries its age, and silence becomes a fault.
"""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog
from msgspec.structs import replace

from kohakuriver.wire.messages import GpuInfo

_NO_GPU_INTERVAL_SECONDS = 60.0
"""Between looks for a driver on a machine that has shown none."""
SILENT_AFTER_SECONDS = 20.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class GpuReading:
    """GPUs in the order of their index, and sentences about what is wrong."""

    gpus: tuple[GpuInfo, ...] = ()
    faults: tuple[str, ...] = ()


class GpuSource(Protocol):
    """One vendor's GPUs. Called by one thread at a time; may block; never raises for what the driver does."""

    def read(self) -> GpuReading: ...

    def close(self) -> None: ...


class GpuSampler:
    """Reads all sources, at once with `read` or again and again in a daemon thread between start and stop."""

    def __init__(self, sources: tuple[GpuSource, ...], interval_seconds: float) -> None:
        self._sources = sources
        self._interval_seconds = interval_seconds
        self._reading = GpuReading()
        self._asked_since: float | None = None
        self._one_reader = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def read(self) -> GpuReading:
        """Ask the sources now, in the caller's thread. A later vendor's indices follow the one before."""
        with self._one_reader:
            self._asked_since = time.monotonic()
            readings = [source.read() for source in self._sources]
            gpus: list[GpuInfo] = []
            for reading in readings:
                first = gpus[-1].gpu_id + 1 if gpus else 0
                gpus += [replace(gpu, gpu_id=first + gpu.gpu_id) for gpu in reading.gpus]
            faults = tuple(fault for reading in readings for fault in reading.faults)
            for fault in set(faults) - set(self._reading.faults):
                _log.warning("gpu_fault", fault=fault)
            self._reading = GpuReading(tuple(gpus), faults)
            self._asked_since = None
            return self._reading

    def latest(self) -> GpuReading:
        """The last reading without waiting; with a fault when the driver does not come back."""
        asked_since = self._asked_since
        silent_seconds = time.monotonic() - asked_since if asked_since is not None else 0.0
        if silent_seconds < SILENT_AFTER_SECONDS:
            return self._reading
        fault = f"the GPU driver has not answered for {silent_seconds:.0f} seconds; GPU figures are old"
        return GpuReading(self._reading.gpus, (*self._reading.faults, fault))

    def start(self) -> None:
        self._ended.clear()
        self._thread = threading.Thread(target=self._run, name="gpu-sampler", daemon=True)
        self._thread.start()

    def stop(self, timeout_seconds: float = 2.0) -> None:
        """End the thread; one that hangs in the driver is left behind and dies with the process."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
            self._thread = None

    def _run(self) -> None:
        pause_seconds = 0.0
        while not self._ended.wait(pause_seconds):
            reading = self.read()
            pause_seconds = self._interval_seconds if reading.gpus else _NO_GPU_INTERVAL_SECONDS
        with self._one_reader:
            for source in self._sources:
                source.close()


def numa_node_of(sys_root: Path, pci_bus_id: str | None) -> int | None:
    """NUMA node of a PCI device as sysfs tells it; None where it has none (-1) or is not known.

    NVML writes eight digits of domain where the kernel writes four.
    """
    if not pci_bus_id:
        return None
    domain, _, rest = pci_bus_id.lower().partition(":")
    path = sys_root / "bus/pci/devices" / f"{domain[-4:]:0>4}:{rest}" / "numa_node"
    try:
        node = int(path.read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None
