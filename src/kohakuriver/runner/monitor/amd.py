"""AMD GPUs through the `amd-smi` program, where it is installed.

The program takes a good part of a second of CPU time, so live figures are asked for rarely and kept between.
Its JSON is a list in older versions and `{"gpu_data": […]}` in newer ones; an unknown value is "N/A".
"""

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from kohakuriver.oom_score import expendable
from kohakuriver.runner.monitor.gpu_source import GpuReading, numa_node_of
from kohakuriver.wire.messages import GpuInfo

_METRIC_INTERVAL_SECONDS = 15.0
_TIMEOUT_SECONDS = 15.0
_MEMORY_UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


class AmdSource:
    """Reads AMD GPUs. `program` None: the `amd-smi` on PATH, looked for at each reading."""

    def __init__(self, sys_root: Path, program: str | None = None) -> None:
        self._sys_root = sys_root
        self._program = program
        self._known: tuple[GpuInfo, ...] = ()
        self._latest = GpuReading()
        self._asked_at = float("-inf")

    def read(self) -> GpuReading:
        program = self._program or shutil.which("amd-smi")
        if program is None or time.monotonic() - self._asked_at < _METRIC_INTERVAL_SECONDS:
            return self._latest
        self._asked_at = time.monotonic()
        try:
            if not self._known:
                listed = _run_json(program, "list", "--json")
                static = _run_json(program, "static", "--asic", "--vram", "--driver", "--json")
                self._known = parse_amd_gpus(listed, static, self._sys_root)
            metric = _run_json(
                program, "metric", "--usage", "--power", "--temperature", "--mem-usage", "--json"
            )
            self._latest = GpuReading(parse_amd_metrics(self._known, metric))
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            # The program is often installed without a card; that is no fault.
            faults = (f"amd-smi stopped answering ({error}); GPU figures are missing",) if self._known else ()
            self._latest = GpuReading(self._known, faults)
        return self._latest

    def close(self) -> None:
        """Nothing is held between readings."""


def parse_amd_gpus(listed: str, static: str, sys_root: Path) -> tuple[GpuInfo, ...]:
    """Read `amd-smi list` and `amd-smi static`; raises ValueError for what is not their JSON."""
    facts = {row["gpu"]: row for row in _rows(static)}
    gpus = []
    for row in _rows(listed):
        index, bus_id = row["gpu"], row.get("bdf")
        fact = facts.get(index, {})
        gpus.append(
            GpuInfo(
                gpu_id=index,
                uuid=str(row["uuid"]),
                name=_word(_at(fact, "asic", "market_name")) or "AMD GPU",
                memory_total_bytes=_bytes(_at(fact, "vram", "size")) or 0,
                vendor="amd",
                pci_bus_id=bus_id,
                numa_node=numa_node_of(sys_root, bus_id),
                driver_version=_word(_at(fact, "driver", "version")),
            )
        )
    return tuple(gpus)


def parse_amd_metrics(known: tuple[GpuInfo, ...], metric: str) -> tuple[GpuInfo, ...]:
    """Add the live figures of `amd-smi metric` to the GPUs."""
    rows = {row["gpu"]: row for row in _rows(metric)}
    gpus = []
    for gpu in known:
        row = rows.get(gpu.gpu_id, {})
        temperatures = (_number(_at(row, "temperature", sensor)) for sensor in ("hotspot", "edge"))
        gpus.append(
            replace(
                gpu,
                gpu_utilization=_number(_at(row, "usage", "gfx_activity")),
                memory_used_bytes=_bytes(_at(row, "mem_usage", "used_vram")),
                temperature=next((value for value in temperatures if value is not None), None),
                power_usage_watts=_number(_at(row, "power", "socket_power")),
            )
        )
    return tuple(gpus)


def _run_json(program: str, *arguments: str) -> str:
    result = subprocess.run(
        expendable(program, *arguments), capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=True
    )
    return result.stdout


def _rows(text: str) -> list[dict[str, Any]]:
    document = json.loads(text)
    rows = document.get("gpu_data") if isinstance(document, dict) else document
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "gpu" in row for row in rows):
        raise ValueError("amd-smi answered in a form that is not known")
    return rows


def _at(row: dict[str, Any], *keys: str) -> Any:
    value: Any = row
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _number(value: Any) -> float | None:
    """A figure is a number or `{"value": number, "unit": …}`."""
    figure = value.get("value") if isinstance(value, dict) else value
    return float(figure) if isinstance(figure, (int, float)) and not isinstance(figure, bool) else None


def _bytes(value: Any) -> int | None:
    amount = _number(value)
    unit = value.get("unit", "MB") if isinstance(value, dict) else "MB"
    return None if amount is None else int(amount * _MEMORY_UNITS.get(unit, 1 << 20))


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value != "N/A" else None
