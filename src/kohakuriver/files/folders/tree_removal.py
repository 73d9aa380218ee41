"""A folder removed with all that is in it, by descriptors. Blocking.

Rules: no link is followed; what is mounted inside is left alone, since its content lives elsewhere; depth
costs no descriptors and no recursion, and the way up leads only to where the way down came from.
"""

import contextlib
import os
from dataclasses import dataclass

from kohakuriver.files.faults import faults_about, shown
from kohakuriver.files.system.kernel_mounts import mount_of, refuse_mount
from kohakuriver.models.errors import Conflict

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class _Above:
    """A folder that was left for `child`, which is in it."""

    device: int
    inode: int
    child: bytes


def remove_tree(parent: int, name: bytes, path: bytes) -> None:
    """Remove the folder `name` of `parent`; `path` is what it is called in errors."""
    with faults_about(path):
        here = os.open(name, _FOLDER, dir_fd=parent)
    try:
        mount = mount_of(parent)
        if mount_of(here) != mount:
            raise Conflict(
                f"{shown(path)} is a mount, whose content lives elsewhere; delete what is in it by name"
            )
        trail: list[_Above] = []
        while True:
            with faults_about(path):
                child = _empty_up_to_a_folder(here)
                if child is not None:
                    here = _go_down(here, child, trail, mount, path)
                elif trail:
                    here = _go_up(here, trail, path)
                else:
                    break
    finally:
        os.close(here)
    with faults_about(path):
        os.rmdir(name, dir_fd=parent)


def _empty_up_to_a_folder(folder: int) -> bytes | None:
    """Unlink entries until one is a folder, and return its name; None once nothing is left."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if entry.is_dir(follow_symlinks=False):
                return name
            refuse_mount(folder, name)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
    return None


def _go_down(here: int, child: bytes, trail: list[_Above], mount: int, path: bytes) -> int:
    below = os.open(child, _FOLDER, dir_fd=here)
    if mount_of(below) != mount:
        os.close(below)
        raise Conflict(
            f"{shown(path)} holds a mount, {shown(child)}, whose content lives elsewhere; "
            "delete what is beside it by name"
        )
    status = os.fstat(here)
    trail.append(_Above(status.st_dev, status.st_ino, child))
    os.close(here)
    return below


def _go_up(here: int, trail: list[_Above], path: bytes) -> int:
    above = os.open("..", _FOLDER, dir_fd=here)
    came_from, status = trail.pop(), os.fstat(above)
    if (status.st_dev, status.st_ino) != (came_from.device, came_from.inode):
        os.close(above)
        raise Conflict(f"{shown(path)} was moved about while it was deleted; try again")
    try:
        os.rmdir(came_from.child, dir_fd=above)
    except OSError:
        os.close(above)
        raise
    os.close(here)
    return above
