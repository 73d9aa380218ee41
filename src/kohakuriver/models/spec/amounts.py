"""Amounts as they are asked for and counted: memory in bytes, cores as logical CPUs.

Whole cores are integers, parts of one are thousandths.
"""

import math

from kohakuriver.models.errors import InvalidInput

Cores = int | float
MOST_CORES = 10_000
LEAST_PART = 0.01
"""Engines give no less."""
ROUNDING = 0.0005
"""Differences below it come from adding, not from anybody's request."""
_DIGITS = 3

LEAST_MEMORY_BYTES = 6 << 20
"""With less no engine makes a container."""
_MEANT_AS_MIB = 1 << 20


def exact(amount: Cores) -> Cores:
    """What is meant by a sum of amounts: thousandths, and whole cores as integers."""
    if isinstance(amount, int):
        return amount
    rounded = round(amount, _DIGITS)
    return int(rounded) if rounded.is_integer() else rounded


def check_cores(amount: Cores) -> Cores:
    """Return it in the one form; raises InvalidInput. 0 is no limit."""
    if not math.isfinite(amount) or not 0 <= amount <= MOST_CORES:
        raise InvalidInput(f"cores are a number from 0 to {MOST_CORES}", field="required_cores")
    if 0 < amount < LEAST_PART:
        raise InvalidInput(f"a task has {LEAST_PART} cores at least; 0 sets no limit", field="required_cores")
    return exact(amount)


def check_memory(amount_bytes: int) -> int:
    """Return the limit of a workload; raises InvalidInput for one that no container can have. 0: none."""
    if not 0 < amount_bytes < LEAST_MEMORY_BYTES:
        return amount_bytes
    meant = f"; for {amount_bytes} MiB ask for {amount_bytes << 20}" if amount_bytes <= _MEANT_AS_MIB else ""
    raise InvalidInput(
        f"{amount_bytes} bytes of memory are less than a container can have "
        f"({mib(LEAST_MEMORY_BYTES)}){meant}",
        "required_memory_bytes",
    )


def mib(amount_bytes: int) -> str:
    """As people read it: "1,024 MiB"."""
    return f"{amount_bytes / (1 << 20):,.0f} MiB"
