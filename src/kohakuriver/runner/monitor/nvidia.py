"""NVIDIA GPUs through NVML. All calls come from one thread; each of them may be unsupported on a card.

A machine without the library has no GPUs and no fault. A library that answered before and stops (a reloaded
driver, a card off the bus) is a fault; the cards stay listed without live figures, and every reading tries
anew, so that it recovers by itself.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from kohakuriver.runner.monitor.gpu_source import GpuReading, numa_node_of
from kohakuriver.wire.messages import GpuInfo

_LIBRARY = "libnvidia-ml.so.1"
_LIVE_FIGURES = (
    "gpu_utilization",
    "memory_used_bytes",
    "temperature",
    "power_usage_watts",
    "memory_utilization",
    "graphics_clock_mhz",
    "memory_clock_mhz",
    "fan_speed_percent",
    "power_limit_watts",
)
_Value = TypeVar("_Value")


class NvidiaSource:
    """Reads NVIDIA GPUs. Its index of a GPU is NVML's, which is also the engine's numbering."""

    def __init__(self, sys_root: Path) -> None:
        self._sys_root = sys_root
        self._nvml: Any = None
        self._driver_version: str | None = None
        self._known: dict[int, GpuInfo] = {}

    def read(self) -> GpuReading:
        """Take one reading; never raises for what the driver does."""
        failure = self._open()
        if failure is not None:
            return self._without_library(failure)
        count = self._ask(self._nvml.nvmlDeviceGetCount)
        if count is None:
            self.close()
            return self._without_library("it does not list its GPUs")
        found = {index: gpu for index in range(count) if (gpu := self._read_gpu(index)) is not None}
        lost = sorted(set(self._known) - set(found))
        self._known |= found
        faults = tuple(f"NVIDIA GPU {index} ({self._known[index].name}) does not answer" for index in lost)
        return GpuReading(
            tuple(self._known[i] if i in found else _idle(self._known[i]) for i in sorted(self._known)),
            faults,
        )

    def close(self) -> None:
        if self._nvml is not None:
            self._ask(self._nvml.nvmlShutdown)
            self._nvml = None

    def _open(self) -> str | None:
        """Initialise NVML if it is not; return why that did not work.

        pynvml is large, so it is imported only where its library is.
        """
        if self._nvml is not None:
            return None
        try:
            ctypes.CDLL(_LIBRARY)
            import pynvml
        except (OSError, ImportError) as error:
            return str(error)
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            return str(error)
        self._nvml = pynvml
        self._driver_version = self._ask(pynvml.nvmlSystemGetDriverVersion)
        return None

    def _without_library(self, failure: str) -> GpuReading:
        if not self._known:
            return GpuReading((), ())
        fault = f"the NVIDIA driver stopped answering ({failure}); GPU figures are missing until it does"
        return GpuReading(tuple(_idle(self._known[index]) for index in sorted(self._known)), (fault,))

    def _read_gpu(self, index: int) -> GpuInfo | None:
        nvml, ask = self._nvml, self._ask
        handle = ask(nvml.nvmlDeviceGetHandleByIndex, index)
        uuid = None if handle is None else ask(nvml.nvmlDeviceGetUUID, handle)
        if uuid is None:
            return None
        gpu = self._known.get(index)
        if gpu is None or gpu.uuid != uuid:
            gpu = self._static_facts(index, handle, uuid)
        memory = ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        rates = ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        degrees = ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        milliwatts = ask(nvml.nvmlDeviceGetPowerUsage, handle)
        limit = ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        fan_percent = ask(nvml.nvmlDeviceGetFanSpeed, handle)
        return replace(
            gpu,
            memory_total_bytes=int(memory.total) if memory else gpu.memory_total_bytes,
            memory_used_bytes=int(memory.used) if memory else None,
            gpu_utilization=float(rates.gpu) if rates else None,
            temperature=None if degrees is None else float(degrees),
            power_usage_watts=None if milliwatts is None else milliwatts / 1000,
            memory_utilization=float(rates.memory) if rates else None,
            graphics_clock_mhz=ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_GRAPHICS),
            memory_clock_mhz=ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
            fan_speed_percent=None if fan_percent is None else float(fan_percent),
            power_limit_watts=None if limit is None else limit / 1000,
        )

    def _static_facts(self, index: int, handle: Any, uuid: str) -> GpuInfo:
        pci = self._ask(self._nvml.nvmlDeviceGetPciInfo, handle)
        bus_id = _text(pci.busId) if pci else None
        return GpuInfo(
            gpu_id=index,
            uuid=uuid,
            name=self._ask(self._nvml.nvmlDeviceGetName, handle) or "NVIDIA GPU",
            memory_total_bytes=0,
            pci_bus_id=bus_id,
            numa_node=self._numa_node(handle, bus_id),
            driver_version=self._driver_version,
        )

    def _numa_node(self, handle: Any, bus_id: str | None) -> int | None:
        """The kernel's word on the PCI device, else the one memory node that NVML finds near."""
        node = numa_node_of(self._sys_root, bus_id)
        if node is not None:
            return node
        mask = self._ask(
            self._nvml.nvmlDeviceGetMemoryAffinity, handle, 1, self._nvml.NVML_AFFINITY_SCOPE_NODE
        )
        near = int(mask[0]) if mask else 0
        return near.bit_length() - 1 if near and near & (near - 1) == 0 else None

    def _ask(self, function: Callable[..., _Value], *arguments: Any) -> _Value | None:
        """Make one call; None when this card, driver or library cannot answer it."""
        import pynvml

        try:
            return function(*arguments)
        except (pynvml.NVMLError, UnicodeDecodeError, AttributeError):
            return None


def _idle(gpu: GpuInfo) -> GpuInfo:
    return replace(gpu, **dict.fromkeys(_LIVE_FIGURES))


def _text(value: bytes | str) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
