"""LOCAL_TEMP_DIR on the node: what is in it, who may reach it, and how it is made.

    logs/             output of tasks on a node without shared storage; only the runner's
    workloads/data/   what workloads see as /local_temp; open to all of them, and through `workloads` to
                      nobody else on the node
    workloads/homes/  home folders of tasks whose user is not root, one for each task while it lives

Output lies outside what is mounted, so nothing that a workload does there bends the way to it. The folder may
be an administrator's scratch disk: what else is in it stays as it is, and so does its mode. Blocking.
"""

import os
import stat
from pathlib import Path

import structlog

from kohakuriver.files.system.linkless import folder_below
from kohakuriver.models.errors import InvalidInput

LOGS = "logs"
WORKLOADS = "workloads"
DATA = "data"
HOMES = "homes"
_OWN_MODE, _PRIVATE_MODE, _DATA_MODE = 0o711, 0o700, 0o1777
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

_log = structlog.get_logger(__name__)


def data_folder(local_temp_dir: Path) -> Path:
    """What workloads see as /local_temp."""
    return local_temp_dir / WORKLOADS / DATA


def homes_folder(local_temp_dir: Path) -> Path:
    return local_temp_dir / WORKLOADS / HOMES


def prepare_local_temp(folder: Path) -> None:
    """Make what is missing; raises InvalidInput for a folder that others could put something else into."""
    try:
        _refuse_links_of_others(folder)
        if not folder.exists():
            folder.mkdir(parents=True)
            folder.chmod(_OWN_MODE)
        _refuse_what_others_could_change(folder)
        with folder_below(folder, ()) as descriptor:
            is_new = not _exists(WORKLOADS, descriptor)
            for name in (LOGS, WORKLOADS):
                _make_private(descriptor, name, folder / name)
        with folder_below(folder, (WORKLOADS,)) as descriptor:
            if not _exists(DATA, descriptor):
                os.mkdir(DATA, dir_fd=descriptor)
                os.chmod(DATA, _DATA_MODE, dir_fd=descriptor)
            _make_private(descriptor, HOMES, homes_folder(folder))
        with folder_below(folder, (WORKLOADS, DATA)):
            pass
    except OSError as error:
        raise InvalidInput(
            f"LOCAL_TEMP_DIR {folder} cannot be used ({error.strerror}); it needs folders, and no links, at "
            f"{LOGS}, {WORKLOADS}, {WORKLOADS}/{DATA} and {WORKLOADS}/{HOMES}"
        ) from error
    if is_new:
        _tell_of_other_files(folder)


def _exists(name: str, folder: int) -> bool:
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def _refuse_links_of_others(folder: Path) -> None:
    """Whoever put one into a place that is open to all, as /tmp is, can have it lead elsewhere later."""
    for place in (folder, *folder.parents):
        if place.is_symlink() and (owner := place.lstat().st_uid) not in (0, os.geteuid()):
            raise InvalidInput(
                f"LOCAL_TEMP_DIR {folder} leads through {place}, a link of another user (uid {owner}); "
                "remove it, or name another folder"
            )


def _refuse_what_others_could_change(folder: Path) -> None:
    status = folder.stat()
    if status.st_uid not in (0, os.geteuid()):
        raise InvalidInput(
            f"LOCAL_TEMP_DIR {folder} belongs to another user (uid {status.st_uid}), who could replace what "
            "is in it; give it to root, or name another folder"
        )
    others = status.st_mode & _OTHERS_WRITE
    if status.st_gid in (0, os.getegid()):
        others &= ~stat.S_IWGRP
    if others and not status.st_mode & stat.S_ISVTX:
        raise InvalidInput(
            f"others may write to LOCAL_TEMP_DIR {folder} and could replace what is in it; take that from "
            f"them (chmod go-w {folder}), or set its sticky bit (chmod +t {folder})"
        )


def _make_private(parent: int, name: str, path: Path) -> None:
    if not _exists(name, parent):
        os.mkdir(name, _PRIVATE_MODE, dir_fd=parent)
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise InvalidInput(f"{path} belongs to another user; remove it, since the runner needs it")
        os.fchmod(descriptor, _PRIVATE_MODE)
    finally:
        os.close(descriptor)


def _tell_of_other_files(folder: Path) -> None:
    """Earlier versions mounted the whole folder. What is in it may be in use or not ours, so it stays."""
    others = [name for name in os.listdir(folder) if name not in (LOGS, WORKLOADS)]
    if others:
        _log.warning(
            "local_temp_has_other_files",
            entries=len(others),
            meaning=f"new workloads see {data_folder(folder)} as /local_temp; move there what they need",
        )
