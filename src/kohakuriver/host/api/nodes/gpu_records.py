"""GPUs in answers: what the runner measured, and the same in the units and names of earlier clients."""

import msgspec

from kohakuriver.wire.messages import GpuInfo

_MIB = 1 << 20


class GpuRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU. A live figure is null where the card does not tell it, or its node is unreachable."""

    gpu_id: int
    uuid: str
    name: str
    vendor: str
    pci_bus_id: str | None
    numa_node: int | None
    driver_version: str | None
    gpu_utilization: float | None
    memory_total_bytes: int
    memory_used_bytes: int | None
    temperature: float | None
    power_usage_watts: float | None
    memory_total_mib: int
    memory_used_mib: int | None
    mem_utilization: float | None
    """Per cent of the time in which the card's memory was read or written."""
    graphics_clock_mhz: int | None
    mem_clock_mhz: int | None
    fan_speed: float | None
    """Per cent of the fan's highest speed."""
    power_usage_mw: int | None
    power_limit_mw: int | None


def gpu_record(gpu: GpuInfo) -> GpuRecord:
    used = gpu.memory_used_bytes
    return GpuRecord(
        gpu_id=gpu.gpu_id,
        uuid=gpu.uuid,
        name=gpu.name,
        vendor=gpu.vendor,
        pci_bus_id=gpu.pci_bus_id,
        numa_node=gpu.numa_node,
        driver_version=gpu.driver_version,
        gpu_utilization=gpu.gpu_utilization,
        memory_total_bytes=gpu.memory_total_bytes,
        memory_used_bytes=used,
        temperature=gpu.temperature,
        power_usage_watts=gpu.power_usage_watts,
        memory_total_mib=gpu.memory_total_bytes // _MIB,
        memory_used_mib=None if used is None else used // _MIB,
        mem_utilization=gpu.memory_utilization,
        graphics_clock_mhz=gpu.graphics_clock_mhz,
        mem_clock_mhz=gpu.memory_clock_mhz,
        fan_speed=gpu.fan_speed_percent,
        power_usage_mw=_milliwatts(gpu.power_usage_watts),
        power_limit_mw=_milliwatts(gpu.power_limit_watts),
    )


def _milliwatts(watts: float | None) -> int | None:
    return None if watts is None else round(1000 * watts)
