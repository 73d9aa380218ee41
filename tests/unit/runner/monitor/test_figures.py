"""Parsers of the resource monitor, on recorded files of machines that are not here."""

from pathlib import Path

import pytest

from kohakuriver.models.resources import NumaNode
from kohakuriver.runner.monitor.amd import AmdSource, parse_amd_gpus, parse_amd_metrics
from kohakuriver.runner.monitor.gpu_source import numa_node_of
from kohakuriver.runner.monitor.numa import parse_numactl, read_numa, read_sysfs_numa
from kohakuriver.runner.monitor.proc_figures import (
    CpuTimes,
    cpu_percent,
    parse_cpu_list,
    parse_cpu_times,
    parse_memory,
)
from kohakuriver.runner.monitor.temperature import find_cpu_sensors, read_temperatures

DATA = Path(__file__).with_name("monitor_data")
TWO_SOCKETS = DATA / "two_sockets"


def test_cpu_time_spent_waiting_for_disks_is_idle() -> None:
    times = parse_cpu_times(b"cpu  100 20 30 800 50 4 6 10 40 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    assert times == CpuTimes(busy=170, total=1020)


@pytest.mark.parametrize(
    ("after", "percent"),
    [
        (CpuTimes(125, 200), 25.0),
        (CpuTimes(90, 200), 0.0),
        (CpuTimes(300, 200), 100.0),
        (CpuTimes(100, 100), 0.0),
    ],
)
def test_cpu_percent_stays_between_0_and_100_when_counters_step_back(after: CpuTimes, percent: float) -> None:
    assert cpu_percent(CpuTimes(100, 100), after) == percent


def test_used_memory_is_what_is_not_available() -> None:
    memory = parse_memory((TWO_SOCKETS / "proc/meminfo").read_bytes())
    assert memory.total_bytes == 263852032 * 1024
    assert memory.used_bytes == (263852032 - 231928832) * 1024
    assert memory.used_percent == pytest.approx(12.1, abs=0.01)


def test_memory_without_the_kernels_estimate_counts_caches_as_available() -> None:
    memory = parse_memory(b"MemTotal: 1000 kB\nMemFree: 500 kB\nBuffers: 100 kB\nCached: 150 kB\n")
    assert memory.available_bytes == 750 * 1024


@pytest.mark.parametrize("text", [b"", b"MemTotal: many kB\n", b"MemTotal: 0 kB\n"])
def test_memory_that_cannot_be_read_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="MemTotal"):
        parse_memory(text)


@pytest.mark.parametrize(
    ("text", "cpus"), [("0-3,8,10-11\n", (0, 1, 2, 3, 8, 10, 11)), ("\n", ()), ("5", (5,)), ("0,2", (0, 2))]
)
def test_kernel_lists_are_read(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == cpus


def test_numactl_and_sysfs_tell_the_same_two_sockets() -> None:
    first, second = parse_numactl((DATA / "numactl_two_sockets.txt").read_text())
    assert (first.id, first.cpus, first.memory_bytes) == (0, (*range(8), *range(16, 24)), 128656 << 20)
    assert (second.id, second.cpus, second.memory_bytes) == (1, (*range(8, 16), *range(24, 32)), 129012 << 20)
    nodes = read_sysfs_numa(TWO_SOCKETS / "sys")
    assert [(node.id, node.cpus) for node in nodes] == [(first.id, first.cpus), (second.id, second.cpus)]
    assert nodes[0].memory_bytes == 131743744 * 1024


@pytest.mark.parametrize("output", ["", "No NUMA available on this system\n", "node 0 cpus: one two\n"])
def test_a_machine_without_numa_lists_everything_as_node_0(output: str, tmp_path: Path) -> None:
    numactl = _program(tmp_path / "numactl", f"printf '{output}'")
    assert read_numa(tmp_path, str(numactl), (0, 1), 8 << 30) == (NumaNode(0, (0, 1), 8 << 30),)


def test_the_only_node_has_all_memory_whatever_it_had_at_boot(tmp_path: Path) -> None:
    numactl = _program(tmp_path / "numactl", r"printf 'node 0 cpus: 0 1\nnode 0 size: 4570 MB\n'")
    assert read_numa(tmp_path, str(numactl), (0, 1), 24 << 30) == (NumaNode(0, (0, 1), 24 << 30),)


def test_the_numactl_that_is_set_is_the_one_that_is_asked(tmp_path: Path) -> None:
    numactl = _program(tmp_path / "my-numactl", f"cat {DATA}/numactl_two_sockets.txt")
    assert [node.id for node in read_numa(tmp_path, str(numactl), (0,), 1)] == [0, 1]


@pytest.mark.parametrize("script", ["exit 1", "echo broken"])
def test_sysfs_serves_when_numactl_fails(script: str, tmp_path: Path) -> None:
    numactl = _program(tmp_path / "numactl", script)
    assert len(read_numa(TWO_SOCKETS / "sys", str(numactl), (0,), 1)) == 2


def test_temperatures_come_from_cpu_sensors_alone_and_implausible_ones_are_left_out() -> None:
    sensors = find_cpu_sensors(TWO_SOCKETS / "sys")
    assert len(sensors) == 4
    assert read_temperatures(sensors) == pytest.approx((160 / 3, 62.0))


def test_the_offset_control_temperature_of_a_ryzen_is_not_its_heat() -> None:
    assert read_temperatures(find_cpu_sensors(DATA / "ryzen/sys")) == (52.0, 52.0)


def test_a_board_without_hwmon_shows_its_thermal_zone() -> None:
    assert read_temperatures(find_cpu_sensors(DATA / "small_board/sys")) == (45.5, 45.5)


def test_a_machine_without_sensors_has_no_temperature(tmp_path: Path) -> None:
    assert read_temperatures(find_cpu_sensors(tmp_path)) is None


@pytest.mark.parametrize(
    ("bus_id", "node"),
    [
        ("00000000:01:00.0", 1),
        ("0000:01:00.0", 1),
        ("0000:02:00.0", None),
        ("0000:99:00.0", None),
        (None, None),
    ],
)
def test_numa_node_of_a_gpu(bus_id: str | None, node: int | None) -> None:
    assert numa_node_of(TWO_SOCKETS / "sys", bus_id) == node


def test_amd_gpus_are_read_from_both_forms_of_amd_smi() -> None:
    listed, static, metric = (
        (DATA / f"amd_{part}.json").read_text() for part in ("list", "static", "metric")
    )
    (gpu,) = parse_amd_metrics(parse_amd_gpus(listed, static, TWO_SOCKETS / "sys"), metric)
    assert (gpu.vendor, gpu.name, gpu.driver_version) == ("amd", "AMD Instinct MI300X", "6.10.5")
    assert gpu.memory_total_bytes == 196592 << 20
    assert (gpu.gpu_utilization, gpu.temperature, gpu.power_usage_watts) == (42.0, 41.0, 135.0)
    assert gpu.memory_used_bytes == 283 << 20


def test_amd_smi_without_a_card_is_no_fault(tmp_path: Path) -> None:
    reading = AmdSource(tmp_path, str(_program(tmp_path / "amd-smi", "exit 255"))).read()
    assert (reading.gpus, reading.faults) == ((), ())


def test_amd_smi_is_run_and_its_answers_joined(tmp_path: Path) -> None:
    program = _program(tmp_path / "amd-smi", f'cat "{DATA}/amd_$1.json"')
    (gpu,) = AmdSource(tmp_path, str(program)).read().gpus
    assert (gpu.uuid, gpu.gpu_utilization) == ("05ff74a0-0000-1000-8012-345678901234", 42.0)


def _program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path
