"""What host and runner say about snapshots of VPSs."""

from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import force_setattr

from kohakuriver.wire.bounds import NonNegative, UnixTime, cut


class SnapshotRequest(msgspec.Struct, frozen=True, kw_only=True):
    message: Annotated[str, Meta(max_length=500)] = ""


class SnapshotState(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot of a VPS; `at`: unix time, which names it; `size_bytes`: what it adds."""

    at: UnixTime
    message: str
    size_bytes: NonNegative

    def __post_init__(self) -> None:
        force_setattr(self, "message", cut(self.message))
