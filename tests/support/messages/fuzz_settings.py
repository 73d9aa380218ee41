"""How long the fuzz lane searches: a little and always the same, or at random with `FUZZ_EXAMPLES` a test."""

import os

from hypothesis import HealthCheck, Phase, settings

_FIRST_IS_ENOUGH = (Phase.explicit, Phase.generate)
EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "")

search = settings(
    max_examples=int(EXAMPLES or 60),
    derandomize=not EXAMPLES,
    database=None,
    phases=_FIRST_IS_ENOUGH if os.environ.get("FUZZ_FIRST") else tuple(Phase),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
"""Stands above `given`. The run's own time limit and `support.machine.time_limit` find what hangs."""
