"""How much room the store has on its disk, and how much of it new work leaves to the work that is there."""

from dataclasses import dataclass

_MIB = 1 << 20
RESERVE_BYTES = 32 * _MIB
"""Room that new work leaves to the work that is there. A task costs about 1 kB from submission to its end, so
tens of thousands can come to theirs; what is taken in between two looks, a second apart, fits as well."""
RESERVE_SHARE = 10
"""On a small disk the reserve is this part of it: a tenth."""
SET_ASIDE_SHARE = 4
"""A quarter of the reserve's size is set aside beside it, for ending work when others filled the disk."""


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Free bytes on the store's disk for the user that the host runs as, and the disk's size."""

    free_bytes: int
    total_bytes: int

    @property
    def reserve_bytes(self) -> int:
        return min(RESERVE_BYTES, self.total_bytes // RESERVE_SHARE)

    @property
    def set_aside_bytes(self) -> int:
        """What is set aside out of everybody's reach."""
        return self.reserve_bytes // SET_ASIDE_SHARE

    @property
    def is_short(self) -> bool:
        return self.free_bytes < self.reserve_bytes


@dataclass(frozen=True, slots=True)
class StoreSize:
    """`log_bytes`: the log of what is written but not yet in its place."""

    file_bytes: int
    log_bytes: int
    free_bytes: int


def shortage(location: str, room: DiskSpace) -> str | None:
    """Say that there is no room for new work; None while there is."""
    if not room.is_short:
        return None
    free, kept = in_mib(room.free_bytes), in_mib(room.reserve_bytes)
    return (
        f"the disk of the host's database is nearly full: {location}, free space on it {free}; "
        f"the last {kept} are kept for work that is there already"
    )


def in_mib(count_bytes: int) -> str:
    return f"{count_bytes / _MIB:.1f} MiB"
