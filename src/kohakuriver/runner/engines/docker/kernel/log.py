"""What the kernel's log says of its OOM killer (/dev/kmsg, Documentation/ABI/testing/dev-kmsg).

A witness beside the engine, which loses the notice where a container ends at the moment at which it comes.
The log keeps some thousand lines and leaves lines out when many are killed at once, so that it proves a kill
and never its absence.
"""

import os
from collections.abc import Iterator
from pathlib import Path

KERNEL_LOG = Path("/dev/kmsg")
_RECORD_BYTES = 8192
_OOM_KILL = b";oom-kill:"
_WHERE = b"oom_memcg="


def oom_killed_in(container_id: str, log: Path = KERNEL_LOG) -> bool:
    """Whether it killed something because the container's memory limit was reached. Blocking, milliseconds.

    False also where the log cannot be read.
    """
    try:
        file = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return any(names_container(record, container_id) for record in _records(file))
    finally:
        os.close(file)


def names_container(record: bytes, container_id: str) -> bool:
    """`record`: one line of the log. The killer names the control group whose limit was reached."""
    if _OOM_KILL not in record:
        return False
    where = record.partition(_WHERE)[2].partition(b",")[0]
    return container_id.encode() in where


def _records(file: int) -> Iterator[bytes]:
    while True:
        try:
            record = os.read(file, _RECORD_BYTES)
        except BrokenPipeError:
            continue  # lines that were written over meanwhile
        except BlockingIOError:
            return
        if not record:
            return
        yield record
