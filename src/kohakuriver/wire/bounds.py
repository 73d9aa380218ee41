"""How far the numbers, times and texts of messages may go, as types.

Rules: what the other end says is bounded where it is read, so that nothing behind that has to. A bound lies
well above what an honest end ever sends. What is too long and still of use (how a task ended) is cut, since
refusing it would lose the rest of the message; all else is refused.
"""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

MESSAGE_LENGTH = 4000
"""Of sentences for people: longer ones are cut."""
MOST_FAULTS = 50
FAULT_LENGTH = 1000
PROGRESS_LENGTH = 400
MOST_ATTEMPTS = 100_000
"""Workloads of one heartbeat."""
MOST_ORPHANS = 1000
"""Workloads of one heartbeat that stand under other nodes' names."""

# SQLite and msgspec know 64 bits with a sign.
Int64 = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
NonNegative = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Count = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
"""Attempts and revisions, which are counted one by one."""
ExitCode = Annotated[int, Meta(ge=-(1 << 31), le=(1 << 32) - 1)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Index = Annotated[int, Meta(ge=-1, le=1 << 20)]
"""Of a CPU, a GPU or a NUMA node; the kernel says -1 where it does not know."""
Cores = Annotated[int, Meta(ge=1, le=1 << 16)]
Memory = Annotated[int, Meta(ge=1, le=1 << 60)]
Figure = Annotated[float, Meta(ge=-1e15, le=1e15)]
"""A percentage, a temperature, a power. Broken sensors say odd things; all that matters is an end."""
UnixTime = Annotated[int, Meta(ge=0, le=253_000_000_000)]

Moment = Annotated[datetime, Meta(tz=True)]
"""With `check_moment`, which a type cannot say."""
_FIRST_YEAR, _LAST_YEAR = 1970, 9998

Name = Annotated[str, Meta(max_length=256)]
"""Of a node, a device, a version, a boot: of anything that is named by a machine."""
Key = Annotated[str, Meta(max_length=512)]
"""A public key, a proof, or the id of a token."""
IdField = NonNegative | Annotated[str, Meta(max_length=40)]

Text = Annotated[str, Meta(max_length=1000)]
Secret = Annotated[str, Meta(max_length=16_000)]
"""Of a registry: some give out long tokens in the place of passwords."""
Scalar = bool | Int64 | float | Text | None
FreeForm = Annotated[dict[Name, Scalar | Annotated[list[Scalar], Meta(max_length=100)]], Meta(max_length=200)]
"""Settings, by name: no deeper than lists of scalars."""

_Word = Annotated[str, Meta(max_length=100)]
_Part = bool | Int64 | float | _Word | None
Device = Annotated[dict[_Word, _Part | Annotated[list[_Part], Meta(max_length=8)]], Meta(max_length=32)]
"""The same for one of many, which are kept with each heartbeat and shown in each list of nodes."""


def check_moment(moment: datetime | None) -> None:
    """Raise ValueError for a time that would leave the calendar when it is shown in another zone."""
    if moment is not None and not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ValueError(f"the time is not within the years {_FIRST_YEAR} to {_LAST_YEAR}")


def cut(text: str, length: int = MESSAGE_LENGTH) -> str:
    """Return the text, without its middle if it is too long: both ends of an error tell most."""
    if len(text) <= length:
        return text
    half = (length - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"
