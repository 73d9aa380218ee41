"""Names of signals, as users write them."""

import signal

from kohakuriver.models.errors import InvalidInput

KILL = "KILL"


def check_signal(text: str) -> str:
    """Return the name without `SIG`, in capitals; raises InvalidInput for what is none."""
    name = text.upper().removeprefix("SIG")
    if f"SIG{name}" not in signal.Signals.__members__:
        raise InvalidInput(
            f"{text[:40]!r} is no signal; give a name such as TERM, INT, USR1 or KILL", "signal"
        )
    return name
