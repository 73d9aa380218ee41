"""Names of signals, as users write them, and the time between the two that end a workload."""

import signal

from kohakuriver.models.errors import InvalidInput

KILL = "KILL"
DEFAULT_GRACE_SECONDS = 60
MAX_GRACE_SECONDS = 600


def check_signal(text: str) -> str:
    """Return the name without `SIG`, in capitals; raises InvalidInput for what is none."""
    name = text.upper().removeprefix("SIG")
    if f"SIG{name}" not in signal.Signals.__members__:
        raise InvalidInput(
            f"{text[:40]!r} is no signal; give a name such as TERM, INT, USR1 or KILL", "signal"
        )
    return name
