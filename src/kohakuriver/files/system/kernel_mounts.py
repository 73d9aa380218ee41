"""Mounts of a workload: which belong to the kernel (/proc, /sys, /dev), and which entries are mounts.

A mount is known by its number, a file system by its device; names and links say nothing here.
"""

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from kohakuriver.files.system.calls import statx_mount

_KERNEL_PLACES = (b"/proc", b"/sys", b"/dev")
_KERNEL_TYPES = frozenset(
    b"proc sysfs devtmpfs devpts mqueue cgroup cgroup2 securityfs debugfs tracefs configfs bpf fusectl "
    b"pstore binfmt_misc hugetlbfs nsfs selinuxfs efivarfs".split()
)


@dataclass(frozen=True, slots=True)
class KernelMounts:
    """Numbers of mounts, and devices (`st_dev`) that are refused wherever they are mounted."""

    mounts: frozenset[int] = field(default=frozenset())
    devices: frozenset[int] = field(default=frozenset())

    def hold(self, file: int) -> bool:
        """Whether what the descriptor stands for lies on one of them."""
        return os.fstat(file).st_dev in self.devices or mount_of(file) in self.mounts


def read_kernel_mounts(mountinfo: bytes) -> KernelMounts:
    """Read the table in the form of /proc/<pid>/mountinfo (proc_pid_mountinfo(5))."""
    mounts: set[int] = set()
    devices: set[int] = set()
    for line in mountinfo.splitlines():
        left, _, right = line.partition(b" - ")
        fields = left.split(b" ")
        place, kind = fields[4], right.split(b" ")[0]
        if kind in _KERNEL_TYPES or place in _KERNEL_PLACES:
            major, _, minor = fields[2].partition(b":")
            devices.add(os.makedev(int(major), int(minor)))
        if kind in _KERNEL_TYPES or any(is_below(place, kernel) for kernel in _KERNEL_PLACES):
            mounts.add(int(fields[0]))
    return KernelMounts(frozenset(mounts), frozenset(devices))


def lies_in_kernel_place(path: bytes) -> bool:
    """Whether the text of an absolute path begins with one of the places."""
    plain = os.path.normpath(b"/" + path.lstrip(b"/"))
    return any(is_below(plain, kernel) for kernel in _KERNEL_PLACES)


def is_below(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def mount_of(file: int) -> int:
    """The number of the mount through which the descriptor was opened."""
    for line in Path(f"/proc/self/fdinfo/{file}").read_bytes().splitlines():
        name, _, value = line.partition(b":")
        if name == b"mnt_id":
            return int(value)
    raise OSError(f"the kernel does not say on which mount descriptor {file} lies")


def is_mount(folder: int, name: bytes) -> bool:
    """Whether something is mounted on an entry; raises FileNotFoundError if there is none."""
    return _mount_of_entry(folder, name) != _mount_of_entry(folder, b".")


def refuse_mount(folder: int, name: bytes) -> None:
    """Raise EBUSY if something is mounted on the entry; nothing for one that is not there.

    The kernel does so itself for a caller inside the workload. Among the mounts of this program there is no
    such one, so it would rename or remove the entry with what is mounted on it.
    """
    try:
        found = is_mount(folder, name)
    except FileNotFoundError:
        return
    if found:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _mount_of_entry(folder: int, name: bytes) -> int:
    number = statx_mount(folder, name)
    if number is not None:
        return number
    entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        return mount_of(entry)
    finally:
        os.close(entry)
