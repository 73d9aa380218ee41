"""System calls of Linux that Python does not offer: openat2, renameat2, setns, inotify. Blocking.

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
_libc = ctypes.CDLL(None, use_errno=True)


def openat2(folder: int, path: bytes, flags: int, resolve: int) -> int:
    """Open below a folder (openat2(2), Linux 5.6); ENOSYS or EPERM where the kernel has no such call."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    return _checked(_libc.syscall(_long(_OPENAT2), folder, path, how, ctypes.c_size_t(len(how))))


def renameat2(source_folder: int, source: bytes, folder: int, name: bytes, flags: int) -> None:
    """Rename between folders; with RENAME_NOREPLACE, EEXIST where there is such a name already."""
    call = _long(_RENAMEAT2)
    _checked(_libc.syscall(call, source_folder, source, folder, name, ctypes.c_uint(flags)))


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


def _long(number: int) -> ctypes.c_long:
    return ctypes.c_long(number)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
