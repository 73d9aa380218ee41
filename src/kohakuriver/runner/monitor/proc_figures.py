"""CPU and memory figures out of the text of /proc; pure functions of that text."""

from dataclasses import dataclass

_KIB = 1024


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Clock ticks of all CPUs together since boot."""

    busy: int
    total: int


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    total_bytes: int
    available_bytes: int

    @property
    def used_bytes(self) -> int:
        return max(0, self.total_bytes - self.available_bytes)

    @property
    def used_percent(self) -> float:
        return 100.0 * self.used_bytes / self.total_bytes if self.total_bytes else 0.0


def parse_cpu_times(stat: bytes) -> CpuTimes:
    """Read the first line of /proc/stat (proc(5)). Guest time is part of user time already."""
    fields = stat.split(b"\n", 1)[0].split()
    if len(fields) < 6 or fields[0] != b"cpu":
        raise ValueError("/proc/stat does not begin with the line of all CPUs")
    times = [int(field) for field in fields[1:9]]
    total = sum(times)
    idle = times[3] + times[4]  # idle and waiting for input or output
    return CpuTimes(busy=total - idle, total=total)


def cpu_percent(before: CpuTimes, after: CpuTimes) -> float:
    """Share of the time between two readings in which the CPUs worked, 0 to 100.

    The kernel's waiting time may step back, so the result is clamped.
    """
    total = after.total - before.total
    if total <= 0:
        return 0.0
    return min(100.0, max(0.0, 100.0 * (after.busy - before.busy) / total))


def parse_memory(meminfo: bytes) -> MemoryFigures:
    """Read MemTotal and MemAvailable of /proc/meminfo; a kernel without the latter has it estimated."""
    values = {}
    for line in meminfo.splitlines():
        name, _, rest = line.partition(b":")
        amount = rest.split()
        if amount and amount[0].isdigit():
            values[name] = int(amount[0]) * _KIB
    if not values.get(b"MemTotal"):
        raise ValueError("/proc/meminfo has no MemTotal")
    guess = sum(values.get(name, 0) for name in (b"MemFree", b"Buffers", b"Cached"))
    return MemoryFigures(values[b"MemTotal"], values.get(b"MemAvailable", guess))


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Read the kernel's list form, `0-3,8,10-11`, as sorted numbers."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            numbers.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(numbers))
