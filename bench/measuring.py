"""Small measures that the benches share: summaries of samples, what a process costs, the machine itself."""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / ".venv" / "bin"


@dataclass(frozen=True)
class Figure:
    """One measured value. `target` with `at_most` says what would be good; None: there is no target."""

    section: str
    name: str
    value: float
    unit: str
    target: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def reached(self) -> bool | None:
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and extremes, in milliseconds."""
    ordered = sorted(seconds)
    return {
        "n": len(ordered),
        "min_ms": round(ordered[0] * 1000, 2),
        "median_ms": round(statistics.median(ordered) * 1000, 2),
        "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000, 2),
        "max_ms": round(ordered[-1] * 1000, 2),
    }


def spread(told: dict[str, float]) -> str:
    """The extremes of a summary, for the note of a figure."""
    return f"{told['min_ms']:.0f} to {told['max_ms']:.0f} ms, n = {told['n']}"


def timed(action: Callable[[], Any]) -> float:
    """Seconds that one call takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def resident_mib(pid: int) -> float:
    """Resident memory of a process, shared pages counted in full, in MiB."""
    return round(psutil.Process(pid).memory_info().rss / (1 << 20), 1)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used since its start, its threads included."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def core_share(pid: int, seconds: float) -> float:
    """Part of one core that a process uses over some seconds, in percent.

    From the scheduler's own count in nanoseconds: ticks of 10 ms are too coarse for an idle process.
    """
    before, began = _scheduled_ns(pid), time.monotonic()
    time.sleep(seconds)
    return round((_scheduled_ns(pid) - before) / 1e7 / (time.monotonic() - began), 2)


def _scheduled_ns(pid: int) -> int:
    """Nanoseconds on a processor, over all threads."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)


def machine() -> dict[str, Any]:
    """What the figures were taken on, and how busy it was with other work."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "unknown")
    return {
        "cores": psutil.cpu_count(),
        "cpu": model,
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def commit() -> str:
    """The commit that was measured, marked when the tree has changes beyond it."""
    argv = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # looking must not disturb who is at work there
    told = subprocess.run(argv, capture_output=True, check=False, env=environment)
    return told.stdout.decode().strip() or "unknown"
