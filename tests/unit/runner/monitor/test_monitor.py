"""The monitor as a whole: on a recorded machine, on this one, and with the NVML stand-in."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.runner.monitor.gpu_source import GpuReading, GpuSampler
from kohakuriver.runner.monitor.monitor import Monitor, SystemRoots
from kohakuriver.wire.messages import GpuInfo, NodeFigures
from support.machine import nvml_stand_in

DATA = Path(__file__).with_name("monitor_data")
CACHE = Path(__file__).parents[4] / ".cache"
pytestmark = pytest.mark.anyio


class ListedGpus:
    """A source whose cards the test decides; holds every reader back while `answering` is not set."""

    def __init__(self, *gpus: GpuInfo) -> None:
        self.gpus = gpus
        self.answering = threading.Event()
        self.answering.set()

    def read(self) -> GpuReading:
        self.answering.wait(30)
        return GpuReading(self.gpus)

    def close(self) -> None:
        self.gpus = ()


def _gpu(index: int, vendor: str = "nvidia") -> GpuInfo:
    return GpuInfo(gpu_id=index, uuid=f"{vendor}-{index}", name="card", memory_total_bytes=1, vendor=vendor)


@pytest.fixture
def machine(tmp_path: Path) -> SystemRoots:
    """A copy of the recorded two-socket machine, to be changed by the test."""
    shutil.copytree(DATA / "two_sockets", tmp_path / "machine")
    return SystemRoots(tmp_path / "machine/proc", tmp_path / "machine/sys")


def test_inventory_of_a_two_socket_machine(machine: SystemRoots) -> None:
    inventory = Monitor(1, _no_numactl(machine), machine, (ListedGpus(_gpu(0)),)).inventory()
    assert (inventory.cores, inventory.memory_bytes) == (32, 263852032 * 1024)
    assert [len(node.cpus) for node in inventory.numa] == [16, 16]
    assert [gpu.uuid for gpu in inventory.gpus] == ["nvidia-0"]


def test_gpus_of_two_vendors_get_different_numbers() -> None:
    sources = (ListedGpus(_gpu(0), _gpu(1)), ListedGpus(_gpu(0, "amd")))
    assert [(gpu.gpu_id, gpu.uuid) for gpu in GpuSampler(sources, 1).read().gpus] == [
        (0, "nvidia-0"),
        (1, "nvidia-1"),
        (2, "amd-0"),
    ]


def test_a_sample_compares_with_the_one_before(machine: SystemRoots) -> None:
    monitor = Monitor(1, roots=machine, gpu_sources=())
    assert monitor.sample() is None
    (machine.proc / "stat").write_text("cpu  1300 0 700 8400 600 0 0 0 0 0\n")
    figures = monitor.sample()
    assert figures is not None
    assert figures.cpu_percent == 50.0
    assert (figures.memory_percent, figures.memory_total_bytes) == (12.1, 263852032 * 1024)
    assert (figures.current_avg_temp, figures.current_max_temp) == (53.3, 62.0)
    assert figures.at.tzinfo is not None


async def test_samples_are_taken_each_interval_and_drained_once() -> None:
    monitor = Monitor(0.02, gpu_sources=(ListedGpus(_gpu(0)),))
    assert monitor.latest() is None
    async with _running(monitor):
        drained: list[NodeFigures] = []

        def has_gpus() -> bool:
            drained.extend(monitor.drain())
            return len(drained) >= 3 and bool(drained[-1].gpu_info)

        await _until(has_gpus)
        assert [figures.at for figures in drained] == sorted({figures.at for figures in drained})
        assert not {figures.at for figures in drained} & {figures.at for figures in monitor.drain()}
        latest = monitor.latest()
        assert latest is not None
        assert latest.memory_total_bytes > 1 << 28
        assert 0 <= latest.cpu_percent <= 100


async def test_samples_that_nobody_takes_are_bounded() -> None:
    monitor = Monitor(0.001, gpu_sources=())
    async with _running(monitor):
        seen: set[datetime] = set()

        def have_been_more() -> bool:
            if (figures := monitor.latest()) is not None:
                seen.add(figures.at)
            return len(seen) > 120

        await _until(have_been_more)
        kept = monitor.drain()
    assert len(kept) == 120
    assert min(seen) < kept[0].at, "the oldest were dropped"


async def test_a_sample_that_fails_is_a_fault_and_the_next_one_recovers(machine: SystemRoots) -> None:
    monitor = Monitor(0.02, roots=machine, gpu_sources=())
    stat = (machine.proc / "stat").read_text()
    async with _running(monitor):
        await _until(lambda: monitor.latest() is not None)
        (machine.proc / "stat").write_text("nonsense\n")
        await _until(lambda: any("/proc/stat" in fault for fault in monitor.faults()))
        (machine.proc / "stat").write_text(stat)
        await _until(lambda: not monitor.faults())


async def test_a_driver_that_hangs_holds_back_no_other_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kohakuriver.runner.monitor.gpu_source.SILENT_AFTER_SECONDS", 0.05)
    gpus = ListedGpus(_gpu(0))
    monitor = Monitor(0.02, gpu_sources=(gpus,))
    async with _running(monitor):
        await _until(lambda: bool((figures := monitor.latest()) and figures.gpu_info))
        gpus.answering.clear()
        await _until(lambda: any("GPU driver has not answered" in fault for fault in monitor.faults()))
        monitor.drain()
        for _ in range(3):
            await _until(lambda: bool(monitor.drain()))
        gpus.answering.set()
        await _until(lambda: not monitor.faults())


def test_one_sample_costs_little() -> None:
    monitor = Monitor(1, gpu_sources=())
    monitor.sample()
    began = time.thread_time()
    for _ in range(200):
        monitor.sample()
    assert (time.thread_time() - began) / 200 < 0.001


_NVIDIA_PROGRAM = """
import json, sys
from pathlib import Path
import msgspec
from kohakuriver.runner.monitor.nvidia import NvidiaSource
source = NvidiaSource(Path(sys.argv[1]))
for _ in sys.stdin:
    reading = source.read()
    loaded = "pynvml" in sys.modules
    answer = {"gpus": msgspec.to_builtins(reading.gpus), "faults": list(reading.faults), "pynvml": loaded}
    print(json.dumps(answer), flush=True)
"""


class NvidiaReader:
    """A process with the real pynvml, since a library path is read only at a program's start."""

    def __init__(self, sys_root: Path, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _NVIDIA_PROGRAM, str(sys_root)],
            env=os.environ | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def end(self) -> None:
        self.process.communicate(timeout=10)


@pytest.fixture
def gpu_file(tmp_path: Path) -> Path:
    return tmp_path / "gpus.json"


@pytest.fixture
def nvidia(gpu_file: Path) -> Iterator[NvidiaReader]:
    reader = NvidiaReader(DATA / "two_sockets/sys", nvml_stand_in.environment(CACHE, gpu_file))
    yield reader
    reader.end()


def test_nvml_figures_become_ours(nvidia: NvidiaReader, gpu_file: Path) -> None:
    nvml_stand_in.write_gpus(gpu_file, nvml_stand_in.gpu(0), nvml_stand_in.gpu(1, numa_node=None))
    first, second = nvidia.read()["gpus"]
    assert first == {
        "gpu_id": 0,
        "uuid": "GPU-00000000-0000-0000-0000-000000000000",
        "name": "Stand-in GPU",
        "memory_total_bytes": 24 << 30,
        "vendor": "nvidia",
        "pci_bus_id": "00000000:01:00.0",
        "numa_node": 1,
        "driver_version": "550.54.15",
        "gpu_utilization": 10.0,
        "memory_used_bytes": 1 << 30,
        "temperature": 40.0,
        "power_usage_watts": 50.5,
        "memory_utilization": 20.0,
        "graphics_clock_mhz": 1500,
        "memory_clock_mhz": 5000,
        "fan_speed_percent": 30.0,
        "power_limit_watts": 300.0,
    }
    assert second["numa_node"] is None


def test_each_nvml_call_may_be_unsupported(nvidia: NvidiaReader, gpu_file: Path) -> None:
    bare = dict.fromkeys(
        (
            "name",
            "memory_total_bytes",
            "utilization",
            "temperature",
            "power_milliwatts",
            "memory_utilization",
            "graphics_clock",
            "memory_clock",
            "fan_percent",
            "power_limit_milliwatts",
            "pci_bus_id",
            "numa_node",
        )
    )
    nvml_stand_in.write_gpus(gpu_file, nvml_stand_in.gpu(0, **bare))
    answer = nvidia.read()
    (gpu,) = answer["gpus"]
    assert (gpu["uuid"], gpu["name"], gpu["memory_total_bytes"]) == (
        nvml_stand_in.gpu(0)["uuid"],
        "NVIDIA GPU",
        0,
    )
    assert (
        gpu["gpu_utilization"] is gpu["temperature"] is gpu["power_usage_watts"] is gpu["numa_node"] is None
    )
    assert answer["faults"] == []


def test_nvml_that_vanishes_is_a_fault_and_recovers(nvidia: NvidiaReader, gpu_file: Path) -> None:
    nvml_stand_in.write_gpus(gpu_file, nvml_stand_in.gpu(0))
    assert nvidia.read()["faults"] == []
    nvml_stand_in.write_gpus(gpu_file, nvml_stand_in.gpu(0), error=999)
    answer = nvidia.read()
    assert "NVIDIA driver stopped answering" in answer["faults"][0]
    assert (answer["gpus"][0]["gpu_id"], answer["gpus"][0]["gpu_utilization"]) == (0, None)
    nvml_stand_in.write_gpus(gpu_file, nvml_stand_in.gpu(0))
    answer = nvidia.read()
    assert (answer["faults"], answer["gpus"][0]["gpu_utilization"]) == ([], 10.0)


def test_a_card_that_falls_off_the_bus_keeps_its_number_and_is_named(
    nvidia: NvidiaReader, gpu_file: Path
) -> None:
    nvml_stand_in.write_gpus(gpu_file, nvml_stand_in.gpu(0), nvml_stand_in.gpu(1))
    nvidia.read()
    nvml_stand_in.write_gpus(gpu_file, nvml_stand_in.gpu(0, lost=1), nvml_stand_in.gpu(1))
    answer = nvidia.read()
    assert [gpu["gpu_id"] for gpu in answer["gpus"]] == [0, 1]
    assert answer["faults"] == ["NVIDIA GPU 0 (Stand-in GPU) does not answer"]
    assert [gpu["gpu_utilization"] for gpu in answer["gpus"]] == [None, 11.0]


def test_a_driver_that_is_loaded_later_is_found(nvidia: NvidiaReader, gpu_file: Path) -> None:
    assert nvidia.read()["gpus"] == []
    nvml_stand_in.write_gpus(gpu_file, nvml_stand_in.gpu(0))
    assert len(nvidia.read()["gpus"]) == 1


def test_a_machine_without_the_library_has_no_gpus_and_loads_nothing(tmp_path: Path) -> None:
    reader = NvidiaReader(tmp_path, {"LD_LIBRARY_PATH": ""})
    answer = reader.read()
    reader.end()
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has the NVIDIA driver")
    assert answer == {"gpus": [], "faults": [], "pynvml": False}


class _running:
    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    async def __aenter__(self) -> None:
        self._task = asyncio.ensure_future(self._monitor.run())

    async def __aexit__(self, *_error: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


async def _until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def _no_numactl(machine: SystemRoots) -> str:
    program = machine.proc / "numactl"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    return str(program)
