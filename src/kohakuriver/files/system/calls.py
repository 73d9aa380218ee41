"""System calls of Linux that Python does not offer: openat2, renameat2, statx, setns, inotify, mounts, holes.

Blocking.

Errors leave as the OSError of the call. Numbers are those of the generic table, which all machines of the
last years share; x86-64 differs where it is older than that table.
"""

import ctypes
import os
import platform
import struct

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10
RENAME_NOREPLACE = 0x01
CLONE_NEWNET = 0x40000000

_OPENAT2 = 437
_RENAMEAT2 = 316 if platform.machine() == "x86_64" else 276
_STATX = 332 if platform.machine() == "x86_64" else 291
_AT_SYMLINK_NOFOLLOW, _AT_NO_AUTOMOUNT = 0x100, 0x800
_STATX_MNT_ID = 0x1000
_STATX_BYTES, _STATX_MNT_ID_AT = 256, 0x90
_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV = 0x2, 0x4
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_NOATIME, MS_NODIRATIME, MS_RELATIME = 0x20, 0x400, 0x800, 1 << 21
MS_BIND, MS_REC, MS_SLAVE = 0x1000, 0x4000, 1 << 19
_MNT_DETACH = 0x2
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 0x01, 0x02
_libc = ctypes.CDLL(None, use_errno=True)


def openat2(folder: int, path: bytes, flags: int, resolve: int) -> int:
    """Open below a folder (openat2(2), Linux 5.6); ENOSYS or EPERM where the kernel has no such call."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    return _checked(_libc.syscall(_long(_OPENAT2), folder, path, how, ctypes.c_size_t(len(how))))


def renameat2(source_folder: int, source: bytes, folder: int, name: bytes, flags: int) -> None:
    """Rename between folders; with RENAME_NOREPLACE, EEXIST where there is such a name already."""
    call = _long(_RENAMEAT2)
    _checked(_libc.syscall(call, source_folder, source, folder, name, ctypes.c_uint(flags)))


def statx_mount(folder: int, name: bytes) -> int | None:
    """The number of the mount that an entry lies on (statx(2), Linux 5.8); None where the kernel is older.

    Of an entry that something is mounted on it is the number of that mount. A link is not followed.
    """
    found = ctypes.create_string_buffer(_STATX_BYTES)
    flags = ctypes.c_int(_AT_SYMLINK_NOFOLLOW | _AT_NO_AUTOMOUNT)
    _checked(_libc.syscall(_long(_STATX), folder, name, flags, ctypes.c_uint(_STATX_MNT_ID), found))
    (filled,) = struct.unpack_from("=I", found)
    return int(struct.unpack_from("=Q", found, _STATX_MNT_ID_AT)[0]) if filled & _STATX_MNT_ID else None


def punch_hole(file: int, offset: int, length: int) -> None:
    """Give back the room of a range, which reads as zeros then (fallocate(2)); the size stays."""
    mode = ctypes.c_int(_FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE)
    _checked(_libc.fallocate64(file, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def setns(namespace: int, kind: int) -> None:
    """Move the calling thread, and no other, into a namespace; EPERM without CAP_SYS_ADMIN."""
    _checked(_libc.setns(namespace, kind))


def inotify_init(flags: int) -> int:
    return _checked(_libc.inotify_init1(flags))


def inotify_add_watch(inotify: int, path: bytes, mask: int) -> int:
    """Return the number of the watch; ENOSPC where the machine's limit is reached."""
    return _checked(_libc.inotify_add_watch(inotify, path, ctypes.c_uint32(mask)))


def inotify_rm_watch(inotify: int, watch: int) -> None:
    _checked(_libc.inotify_rm_watch(inotify, watch))


def mount(source: bytes | None, target: bytes, flags: int) -> None:
    """mount(2) without a file system of its own: binds, remounts, propagation."""
    _checked(_libc.mount(source, target, None, ctypes.c_ulong(flags), None))


def detach_mount(target: bytes) -> None:
    """Take off what is mounted there, with what is mounted in it; who uses it goes on (umount2(2))."""
    _checked(_libc.umount2(target, _MNT_DETACH))


def forbid_suid_and_devices(target: bytes) -> None:
    """Set nosuid and nodev on a mount and on all in it (mount_setattr(2), Linux 5.12; ENOSYS before)."""
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV, 0, 0, 0)
    size = ctypes.c_size_t(len(attributes))
    flags = ctypes.c_uint(_AT_RECURSIVE)
    _checked(_libc.syscall(_long(_MOUNT_SETATTR), _AT_FDCWD, target, flags, attributes, size))


def _long(number: int) -> ctypes.c_long:
    return ctypes.c_long(number)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
