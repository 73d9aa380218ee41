"""Task ids: 64-bit, time-ordered, unique through clock steps.

Layout, from the high end: sign bit 0, 41 bits of milliseconds since 2024-01-01 UTC, 10 bits of node part,
12 bits of sequence. An id is an integer inside the system and a decimal string in every JSON document.
"""

from typing import NewType

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.numbers import whole_number

TaskId = NewType("TaskId", int)

EPOCH_MS = 1_704_067_200_000
_NODE_BITS = 10
_SEQUENCE_BITS = 12
_MAX_ID = (1 << 63) - 1


class TaskIdGenerator:
    """Gives ids that only ever grow, also when the clock steps back or more than 4096 fall into one ms.

    `node_part` (0 to 1023) comes from the host's lease and keeps two hosts apart; `last` is the highest id
    in the store, so that a restart after a backward clock step cannot repeat one.
    """

    def __init__(self, node_part: int, last: int = 0) -> None:
        if not 0 <= node_part < 1 << _NODE_BITS:
            raise ValueError(f"node part {node_part} is not within 0 to 1023")
        self._node_part = node_part
        self._tick = last >> (_NODE_BITS + _SEQUENCE_BITS)
        self._sequence = (1 << _SEQUENCE_BITS) - 1

    def next(self, now_ms: int) -> TaskId:
        """Return a new id; `now_ms` is Unix time in milliseconds."""
        tick = max(now_ms - EPOCH_MS, self._tick, 0)
        if tick == self._tick:
            self._sequence += 1
            if self._sequence >> _SEQUENCE_BITS:
                tick, self._sequence = tick + 1, 0
        else:
            self._sequence = 0
        self._tick = tick
        return TaskId((tick << _NODE_BITS | self._node_part) << _SEQUENCE_BITS | self._sequence)

    def pass_over(self, number: int) -> None:
        """Give higher ids than this one from now on; the caller knows that it can have been given out."""
        tick = number >> (_NODE_BITS + _SEQUENCE_BITS)
        if self._tick < tick:
            self._tick = tick
            self._sequence = (1 << _SEQUENCE_BITS) - 1


def highest_id_at(now_ms: int) -> int:
    """Return the highest id that a generator could have given by then; `now_ms` is Unix time."""
    return ((max(now_ms - EPOCH_MS, 0) + 1) << (_NODE_BITS + _SEQUENCE_BITS)) - 1


def parse_task_id(text: str | int) -> TaskId:
    """Read an id from a request, which may write it as a string or as a number.

    Raises InvalidInput for anything but 1 to 19 ASCII digits of a positive 64-bit number.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        number: int | None = text
    else:
        number = whole_number(text, 19) if isinstance(text, str) else None
    if number is None:
        raise InvalidInput(f"{str(text)[:40]!r} is not a task id; a task id is a number of up to 19 digits")
    if not 0 < number <= _MAX_ID:
        raise InvalidInput("a task id is a positive 64-bit number of up to 19 digits")
    return TaskId(number)
