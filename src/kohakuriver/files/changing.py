"""Files written, folders made, entries renamed and deleted, in a workload's file system. Blocking.

A file is replaced whole or not at all: its new content is complete on disk before it takes the old one's
name, mode and owner. What is new belongs to whom the folder that it is in belongs to. An entry that something
is mounted on is neither replaced, renamed nor deleted.
"""

import base64
import binascii
import contextlib
import errno
import os
import secrets
import stat

from kohakuriver.descriptors import write_all
from kohakuriver.files.faults import fault_of, faults_about, shown
from kohakuriver.files.folders.tree_removal import remove_tree
from kohakuriver.files.looking import refuse_all_but_files
from kohakuriver.files.records import MAX_WRITE_BYTES, Encoding, FileDone
from kohakuriver.files.rooted_fs import RootedFs, path_bytes, split_path
from kohakuriver.files.system.calls import RENAME_NOREPLACE, renameat2
from kohakuriver.files.system.kernel_mounts import refuse_mount
from kohakuriver.models.errors import Conflict, InvalidInput, NotFound, TooLarge

_NEW_FILE_MODE = 0o644
_NEW_FOLDER_MODE = 0o755
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def content_of(text: str, encoding: Encoding) -> bytes:
    """Decode what is to be written; TooLarge beyond `MAX_WRITE_BYTES`."""
    try:
        content = text.encode() if encoding is Encoding.UTF_8 else base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"content is not {encoding.value}: {error}", field="content") from error
    if len(content) > MAX_WRITE_BYTES:
        raise TooLarge(
            f"a file of {len(content)} bytes is more than is written at once "
            f"({MAX_WRITE_BYTES >> 20} MiB); copy it with `kohakuriver cp`"
        )
    return content


def write_file(fs: RootedFs, path: str, content: bytes, *, create_parents: bool = False) -> FileDone:
    """Replace a regular file or make one; a link is followed, and what it points at is replaced."""
    raw = path_bytes(path)
    if create_parents:
        _make_parents(fs, raw)
    raw = fs.behind_links(raw)
    with fs.folder_of(raw) as (folder, name):
        before = _status_of(folder, name, raw)
        if before is not None:
            refuse_all_but_files(before, raw)
        with faults_about(raw):
            refuse_mount(folder, name)
            _replace(folder, name, content, before)
    return FileDone(f"{shown(raw)} is written ({len(content)} bytes)", shown(raw), size=len(content))


def make_folder(fs: RootedFs, path: str, *, create_parents: bool = False) -> FileDone:
    """Conflict if there is something of that name already."""
    raw = path_bytes(path)
    if create_parents:
        _make_parents(fs, raw)
    _make_folder(fs, raw)
    return FileDone(f"{shown(raw)} is made", shown(raw))


def rename_file(fs: RootedFs, source: str, destination: str, *, overwrite: bool = False) -> FileDone:
    """Give a file, folder or link another name or place on the same file system.

    `overwrite`: replace what has the name already; a folder only if it is empty.
    """
    old, new = path_bytes(source), path_bytes(destination)
    with fs.folder_of(old) as (from_folder, from_name), fs.folder_of(new) as (folder, name):
        if _status_of(from_folder, from_name, old) is None:
            raise NotFound(f"there is no {shown(old)}")
        with faults_about(old):
            refuse_mount(from_folder, from_name)
        with faults_about(new):
            refuse_mount(folder, name)
            if overwrite:
                os.rename(from_name, name, src_dir_fd=from_folder, dst_dir_fd=folder)
            else:
                _rename_to_free(from_folder, from_name, folder, name)
    message = f"{shown(old)} is now {shown(new)}"
    return FileDone(message, shown(new), source=shown(old), destination=shown(new))


def delete_file(fs: RootedFs, path: str, *, recursive: bool = False) -> FileDone:
    """Delete a file, a link (not what it points at), or with `recursive` a folder and all in it."""
    raw = path_bytes(path)
    with fs.folder_of(raw) as (folder, name):
        status = _status_of(folder, name, raw)
        if status is None:
            raise NotFound(f"there is no {shown(raw)}")
        if not stat.S_ISDIR(status.st_mode):
            with faults_about(raw):
                refuse_mount(folder, name)
                os.unlink(name, dir_fd=folder)
        elif not recursive:
            raise Conflict(f"{shown(raw)} is a folder; delete it with recursive=true")
        else:
            remove_tree(folder, name, raw)
    return FileDone(f"{shown(raw)} is deleted", shown(raw))


def _status_of(folder: int, name: bytes, path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise fault_of(error, path) from error


def _replace(folder: int, name: bytes, content: bytes, before: os.stat_result | None) -> None:
    draft = b".kohakuriver-" + secrets.token_hex(8).encode()
    # Nobody else may read it before it has its mode.
    file = os.open(draft, _NEW, 0o600, dir_fd=folder)
    try:
        try:
            write_all(file, content)
            _give_away(file, folder, before)
            os.fsync(file)
        finally:
            os.close(file)
        os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=folder)
        raise
    _sync_folder(folder)


def _give_away(file: int, folder: int, before: os.stat_result | None) -> None:
    """Set owner and mode: those of the file, else its folder's owner. The owner first: it clears bits."""
    owner = os.fstat(folder) if before is None else before
    os.fchown(file, owner.st_uid, owner.st_gid)
    os.fchmod(file, _NEW_FILE_MODE if before is None else stat.S_IMODE(before.st_mode))


def _sync_folder(folder: int) -> None:
    descriptor = os.open(f"/proc/self/fd/{folder}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system on which folders are not synced
            raise
    finally:
        os.close(descriptor)


def _make_parents(fs: RootedFs, path: bytes) -> None:
    parent = split_path(path)[0]
    missing: list[bytes] = []
    while parent.strip(b"/"):
        try:
            with fs.opened(parent, os.O_DIRECTORY):
                break
        except NotFound:
            missing.append(parent)
            parent = split_path(parent)[0]
    for folder in reversed(missing):
        with contextlib.suppress(Conflict):  # somebody else made it just now
            _make_folder(fs, folder)


def _make_folder(fs: RootedFs, path: bytes) -> None:
    with fs.folder_of(path) as (folder, name), faults_about(path):
        os.mkdir(name, _NEW_FOLDER_MODE, dir_fd=folder)
        owner = os.fstat(folder)
        made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.fchown(made, owner.st_uid, owner.st_gid)
            os.fchmod(made, _NEW_FOLDER_MODE)
        finally:
            os.close(made)


def _rename_to_free(from_folder: int, from_name: bytes, folder: int, name: bytes) -> None:
    try:
        renameat2(from_folder, from_name, folder, name, RENAME_NOREPLACE)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        # File systems over a network do not know the flag; there a moment stays in which one can be made.
        if _status_of(folder, name, name) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        os.rename(from_name, name, src_dir_fd=from_folder, dst_dir_fd=folder)
