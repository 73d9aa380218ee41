"""Ids of users in a workload and on its node: others where the engine maps them (user_namespaces(7))."""

import os
from contextlib import suppress
from dataclasses import dataclass

_NOBODY = 65534
"""What the kernel shows for an id that has none inside."""

Ranges = tuple[tuple[int, int, int], ...]
"""First id inside, first id outside, how many."""


@dataclass(frozen=True, slots=True)
class IdMaps:
    """Without ranges ids are the same on both sides."""

    users: Ranges = ()
    groups: Ranges = ()

    @classmethod
    def of(cls, proc: int) -> "IdMaps":
        """Those of a process, by a descriptor of its folder in /proc. Raises OSError."""
        return cls(_read(proc, "uid_map"), _read(proc, "gid_map"))

    @classmethod
    def of_pid(cls, pid: int | None) -> "IdMaps":
        """None, and a process that is gone: nothing is known, so nothing differs."""
        with suppress(OSError):
            if pid is not None:
                proc = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    return cls.of(proc)
                finally:
                    os.close(proc)
        return cls()

    @property
    def root(self) -> tuple[int, int]:
        """User and group on the node of who is root inside."""
        return self.outside(0, 0)

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        return _outside(self.users, uid), _outside(self.groups, gid)

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        return _inside(self.users, uid), _inside(self.groups, gid)


def _read(proc: int, name: str) -> Ranges:
    file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    with open(file, encoding="ascii") as reader:
        rows = (tuple(map(int, line.split())) for line in reader)
        return tuple((row[0], row[1], row[2]) for row in rows)


def _outside(ranges: Ranges, number: int) -> int:
    for inside, outside, length in ranges:
        if inside <= number < inside + length:
            return outside + number - inside
    return number


def _inside(ranges: Ranges, number: int) -> int:
    for inside, outside, length in ranges:
        if outside <= number < outside + length:
            return inside + number - outside
    return _NOBODY if ranges else number
