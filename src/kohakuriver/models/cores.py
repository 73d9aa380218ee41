"""Amounts of cores: whole ones as integers, parts of one in thousandths."""

import math

from kohakuriver.models.errors import InvalidInput

Cores = int | float
MOST_CORES = 10_000
LEAST_PART = 0.01
"""Engines give no less."""
ROUNDING = 0.0005
"""Differences below it come from adding, not from anybody's wish."""
_DIGITS = 3


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
