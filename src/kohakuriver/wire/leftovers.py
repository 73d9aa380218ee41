"""What a node tells its host of what it keeps of ended work, and what the host has it remove.

The host knows what has ended, the node what it holds. Neither removes on its own word: the host names
VPSs and tasks, and the node keeps those of which anything is still there.
"""

from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from kohakuriver.wire.bounds import FAULT_LENGTH, MOST_FAULTS, Count, IdField, Name, NonNegative, cut

MOST_IDS = 10_000
"""Of one kind in one message; a later sweep finds the rest."""
_MOST_IMAGES = 100_000

Ids = Annotated[list[IdField], Meta(max_length=MOST_IDS)]
_Images = Annotated[list[Annotated[str, Meta(max_length=512)]], Meta(max_length=_MOST_IMAGES)]


class NodeLeftovers(Struct, frozen=True):
    """`sessions` have snapshots on the node, `exported` in shared storage; `outputs` are tasks whose output
    lies only on the node."""

    sessions: Ids = []
    exported: Ids = []
    outputs: Ids = []


class RemovalRequest(Struct, frozen=True):
    """What may go. `dry_run`: it is counted and stays. Days of 0: nothing of that kind goes for its age.

    `needed_images` are wanted by work that can still begin, as their names are written there; `environments`
    are all that there are, None where the host cannot tell.
    """

    dry_run: bool = True
    sessions: Ids = []
    outputs: Ids = []
    images_days: Count = 0
    local_temp_days: Count = 0
    needed_images: _Images = []
    environments: _Images | None = None


class RemovedKind(Struct, frozen=True):
    """`kind`: the value of a `LeftoverKind`."""

    kind: Name
    count: NonNegative = 0
    size_bytes: NonNegative = 0


class Removal(Struct, frozen=True):
    """What went, or would go, and sentences about what could not."""

    removed: Annotated[list[RemovedKind], Meta(max_length=16)] = []
    faults: Annotated[list[str], Meta(max_length=MOST_FAULTS)] = []

    def __post_init__(self) -> None:
        force_setattr(self, "faults", [cut(fault, FAULT_LENGTH) for fault in self.faults])
