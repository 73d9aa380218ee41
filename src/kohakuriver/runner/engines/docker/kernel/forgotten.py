"""Ends what an engine forgot: containers that it holds to be not running, and that live all the same.

An engine that goes away between having a container made and writing that down comes back with the container
as never started. Its shim and first process live on beyond the engine's reach: the engine refuses to start
the container ("already exists") and removes it without ending them. The shim has the container's id among its
arguments, so it is found by that. Only ids of our own containers are ever asked about.
"""

import contextlib
import os
import signal
from enum import Enum
from pathlib import Path

from kohakuriver.runner.engines.docker.kernel.container_shims import children_of, shim_of

# The program that makes a container waits under this name until it is told to become the command.
_NOT_BEGUN = "runc:["


class Forgotten(Enum):
    """What was found, and ended, of a container that the engine does not run."""

    NOTHING = "nothing"
    NOT_BEGUN = "not_begun"
    BEGUN = "begun"


def end_forgotten(container_id: str) -> Forgotten:
    """End a container's processes behind its engine's back, first process and shim. Takes milliseconds.

    Only for a container of ours that the engine holds to be not running, or has removed.
    """
    shim = shim_of(container_id)
    if shim is None:
        return Forgotten.NOTHING
    firsts = children_of(shim)
    begun = any(not _name_of(pid).startswith(_NOT_BEGUN) for pid in firsts)
    # With the first process of its namespace, everything in a container ends.
    for pid in (*firsts, shim):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return Forgotten.BEGUN if begun else Forgotten.NOT_BEGUN


def _name_of(pid: int) -> str:
    """Empty if it has ended, which nothing does before it has begun."""
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""
