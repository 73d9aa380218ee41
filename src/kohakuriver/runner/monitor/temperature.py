"""Temperatures of the CPUs in degrees Celsius, from the sensors that sysfs shows.

Which files are CPU sensors is found out once (`find_cpu_sensors`) and read often (`read_temperatures`).
"""

from pathlib import Path

_CPU_CHIPS = frozenset(
    {"coretemp", "k10temp", "zenpower", "k8temp", "cpu_thermal", "via_cputemp", "fam15h_power"}
)
_CPU_ZONES = ("x86_pkg_temp", "cpu", "soc", "bigcore", "littlecore")
_PLAUSIBLE = range(1_000, 150_000)
"""Millidegrees; an absent or broken sensor reads 0, -128 °C or 255 °C."""


def find_cpu_sensors(sys_root: Path) -> tuple[Path, ...]:
    """Return the files to read, under the given root of sysfs: hwmon chips of CPUs, else thermal zones."""
    sensors = [
        sensor
        for chip in sorted((sys_root / "class/hwmon").glob("hwmon*"))
        if _text(chip / "name") in _CPU_CHIPS
        for sensor in _chip_sensors(chip)
    ]
    if not sensors:
        sensors = [
            zone / "temp"
            for zone in sorted((sys_root / "class/thermal").glob("thermal_zone*"))
            if _text(zone / "type").lower().startswith(_CPU_ZONES)
        ]
    return tuple(sensors)


def read_temperatures(sensors: tuple[Path, ...]) -> tuple[float, float] | None:
    """Return average and highest temperature, or None when no sensor gives a plausible one."""
    readings = [reading for reading in map(_millidegrees, sensors) if reading in _PLAUSIBLE]
    if not readings:
        return None
    return sum(readings) / len(readings) / 1000, max(readings) / 1000


def _chip_sensors(chip: Path) -> list[Path]:
    """All sensors of a chip; where the die is measured, not the control value that adds an offset to it."""
    labels = {
        path: _text(path.with_name(path.name.replace("_input", "_label")))
        for path in chip.glob("temp*_input")
    }
    if "Tdie" in labels.values():
        labels = {path: label for path, label in labels.items() if label != "Tctl"}
    return sorted(labels)


def _millidegrees(sensor: Path) -> int:
    text = _text(sensor)
    return int(text) if text.lstrip("-").isdigit() else 0


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):  # a sensor may vanish or be powered down at any time
        return ""
