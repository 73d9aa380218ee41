"""What a node reports of work that it holds under another node's name; a part of its heartbeats."""

from typing import Annotated

import msgspec
from msgspec import Meta

from kohakuriver.models.enums import TaskState
from kohakuriver.wire.bounds import Count, IdField, Index, Name, NonNegative


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """One workload, and what it takes of the machine. `gpus`: as the node numbers them.

    `names_cluster` False: an earlier version made it, for this cluster or for another one.
    """

    node: Name
    task_id: IdField
    attempt: Count
    status: TaskState
    cores: Count = 0
    memory_bytes: NonNegative = 0
    names_cluster: bool = True
    gpus: Annotated[list[Index], Meta(max_length=512)] = []
