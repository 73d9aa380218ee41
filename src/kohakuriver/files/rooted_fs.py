"""The file system that one process sees, reached by descriptors and never by names of this machine. Blocking.

Rules: a path is resolved by the kernel with the workload's root as its root, so no link, no `..` and no
exchange between check and use leads out of it (openat2(2), Linux 5.6). What was opened is looked at before
it is used: it may not lie on a mount of the kernel's (`kernel_mounts`). Nothing is opened for reading or
writing that was not looked at first.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from kohakuriver.files.faults import OLD_KERNEL, fault_of, faults_about, shown
from kohakuriver.files.records import MAX_PATH_BYTES
from kohakuriver.files.system.calls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from kohakuriver.files.system.first_process import FirstProcess
from kohakuriver.files.system.id_maps import IdMaps
from kohakuriver.files.system.kernel_mounts import KernelMounts, lies_in_kernel_place, read_kernel_mounts
from kohakuriver.models.errors import Denied, InvalidInput, Unavailable

_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_TRIES = 100
"""The kernel gives up (EAGAIN) where a folder was renamed while it went up a `..`; it is asked again."""
_MAX_LINKS = 40


class RootedFs:
    """Open with `rooted`. `root` is a descriptor of the folder that the workload calls `/`.

    `ids`: what its users are called on this machine.
    """

    def __init__(self, root: int, kernel: KernelMounts, ids: IdMaps | None = None) -> None:
        self.root = root
        self.ids = ids or IdMaps()
        self._kernel = kernel

    @contextmanager
    def opened(self, path: bytes, flags: int = os.O_PATH) -> Iterator[int]:
        """Give a descriptor of what is at the path; Denied for what belongs to the kernel.

        `flags` besides O_PATH: O_NOFOLLOW for a link itself, O_DIRECTORY only for folders.
        """
        if lies_in_kernel_place(path):
            raise _kernels(path)
        with faults_about(path):
            file = self._open(path, flags | os.O_PATH)
        try:
            self.refuse_kernels(file, path)
            yield file
        finally:
            os.close(file)

    def refuse_kernels(self, file: int, path: bytes) -> None:
        with faults_about(path):
            if self._kernel.hold(file):
                raise _kernels(path)

    @contextmanager
    def folder_of(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """Give the folder that a path's last name is in, and the name; InvalidInput for a path without."""
        if lies_in_kernel_place(path):
            raise _kernels(path)
        parent, name = split_path(path)
        with self.opened(parent, os.O_DIRECTORY) as folder:
            yield folder, name

    def behind_links(self, path: bytes) -> bytes:
        """Return the path that a file there is written to: links in its last name are followed, by text.

        What comes of it is opened by the same rules as any path, so a link can say what it likes.
        """
        for _ in range(_MAX_LINKS):
            with self.folder_of(path) as (folder, name):
                try:
                    target = os.readlink(name, dir_fd=folder)
                except OSError as error:
                    if error.errno in (errno.EINVAL, errno.ENOENT):  # no link; not there yet
                        return path
                    raise fault_of(error, path) from error
            path = target if target.startswith(b"/") else split_path(path)[0] + b"/" + target
        raise InvalidInput(f"{shown(path)} goes through links that lead in a circle")

    def _open(self, path: bytes, flags: int) -> int:
        for _ in range(_TRIES):
            with contextlib.suppress(BlockingIOError):
                return openat2(self.root, path.lstrip(b"/") or b".", flags, _RESOLVE)
        raise Unavailable(f"what lies around {shown(path)} is being renamed all the time; try again")


@contextmanager
def rooted(process: FirstProcess) -> Iterator[RootedFs]:
    """Give the file system of a workload by its first process, for as long as the context lasts."""
    root, mountinfo, ids = process.open_root()
    try:
        refuse_old_kernel(root)
        yield RootedFs(root, read_kernel_mounts(mountinfo), ids)
    finally:
        os.close(root)


def refuse_old_kernel(root: int) -> None:
    """Raise Unavailable where the kernel (or a filter around this process) has no openat2."""
    try:
        os.close(openat2(root, b".", os.O_PATH | os.O_DIRECTORY, _RESOLVE))
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            raise Unavailable(OLD_KERNEL) from error
        raise


def path_bytes(path: str) -> bytes:
    """Check a path from a request: absolute, without NUL, not longer than the kernel takes."""
    try:
        raw = path.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("a path must be text in UTF-8", field="path") from error
    if not raw.startswith(b"/"):
        raise InvalidInput(f"{path[:200]!r} is not an absolute path; begin it with '/'", field="path")
    if b"\0" in raw or len(raw) > MAX_PATH_BYTES:
        raise InvalidInput(f"a path has at most {MAX_PATH_BYTES} bytes, none of them NUL", field="path")
    return raw


def split_path(path: bytes) -> tuple[bytes, bytes]:
    parent, _, name = path.rstrip(b"/").rpartition(b"/")
    if name in (b"", b".", b".."):
        raise InvalidInput(f"{shown(path)} names no entry of a folder; give the name itself", field="path")
    return parent or b"/", name


def _kernels(path: bytes) -> Denied:
    return Denied(
        f"{shown(path)} belongs to the kernel (/proc, /sys, /dev), which is not offered here; "
        "look at it from a shell inside"
    )
