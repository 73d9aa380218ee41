"""How long the fuzz lane searches: a little and always the same, or at random with `FUZZ_EXAMPLES` a test."""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "")

search = settings(
    max_examples=int(EXAMPLES or 60),
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
"""Stands above `given`. The run's own time limit and `support.time_limit` find what hangs."""
