"""`cp`: files and folders copied into and out of workloads, as `cp -a` does it on one machine."""

import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import click

from kohakuriver.cli.console.plain_text import complain, neutralised
from kohakuriver.cli.console.progress import Progress, progress
from kohakuriver.cli.console.sizes import size_text
from kohakuriver.cli.host_choice import HostChoice, pass_host
from kohakuriver.cli.tasks.commands import task_id_of
from kohakuriver.descriptors import write_all
from kohakuriver.models.errors import Conflict, InvalidInput, KohakuRiverError, NotFound

if TYPE_CHECKING:
    from kohakuriver.client.files import FileRecord
    from kohakuriver.client.host_client import HostClient

_REMOTE = re.compile(r"(?P<ref>[A-Za-z0-9][A-Za-z0-9._-]*):(?P<path>.*)", re.DOTALL)
_STREAM = "-"
_PIECE_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class _Remote:
    """A path in a workload as it was written, made absolute."""

    ref: str
    text: str

    @property
    def path(self) -> str:
        """Without what only says how it is meant: a slash or `/.` at its end."""
        return "/" + self.text.removesuffix("/.").strip("/")

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def follows_link(self) -> bool:
        return self.text.endswith(("/", "/."))


@dataclass(frozen=True, slots=True)
class _Target:
    """A folder in the workload, whom it belongs to, and the copy's name in it; "": without its own folder."""

    folder: str
    name: str
    owner: tuple[int, int]

    @property
    def path(self) -> str:
        """As names in a tar stream are: from the root, without a slash before."""
        return f"{self.folder}/{self.name}".strip("/")


@dataclass(frozen=True, slots=True)
class _Copy:
    """One copy under way; `skipped` counts what could not be part of it."""

    client: "HostClient"
    task_id: str
    shown: Progress
    label: str
    skipped: list[str] = field(default_factory=list)

    def counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        total = 0
        for piece in pieces:
            total += len(piece)
            self.shown.step(f"{self.label}: {size_text(total)}")
            yield piece

    def skip(self, path: str) -> None:
        self.skipped.append(path)
        self.shown.clear()
        complain(f"{path} is a device, a socket or something unknown, and is left out")


@click.command()
@click.option("-r", "-a", is_flag=True, expose_value=False, help="As cp has it; without it is the same.")
@click.argument("paths", metavar="SOURCE… DESTINATION", nargs=-1)
@pass_host
def cp(chosen_host: HostChoice, paths: tuple[str, ...]) -> int:
    """Copy SOURCE to DESTINATION; one of them is ID:PATH, a path in a workload.

    Folders are copied with all that is in them; links stay links; modes and times are kept. Into a folder
    that exists a copy goes under its own name; SOURCE/. gives what is in a folder without it. What is made in
    a workload belongs to whom the folder belongs to. Several sources go into a folder that exists.

    As DESTINATION, - is standard output: a file's content, or a folder as a tar stream. As SOURCE it is
    standard input: a tar stream if DESTINATION is a folder, else the content of a file.

    A local name with a colon is written ./NAME.
    """
    if len(paths) < 2:
        raise click.UsageError("give a SOURCE and a DESTINATION")
    *sources, destination = paths
    goes_to = _place(destination)
    for source in sources:
        if isinstance(_place(source), _Remote) is isinstance(goes_to, _Remote):
            raise InvalidInput("exactly one of SOURCE and DESTINATION must be ID:PATH, a path in a workload")
    if len(sources) > 1:
        _refuse_all_but_folders(chosen_host, sources, destination, goes_to)
    return _copy_each(chosen_host, sources, destination, goes_to)


def _refuse_all_but_folders(
    chosen_host: HostChoice, sources: list[str], destination: str, goes_to: "_Remote | str"
) -> None:
    """Before anything is copied: one after the other they would take each other's place."""
    if _STREAM in (*sources, destination):
        raise InvalidInput("- stands for one source and one destination; copy the others by themselves")
    if isinstance(goes_to, _Remote):
        with progress(f"Copying to {destination}") as shown:
            found = _seen(_begin(chosen_host, goes_to, shown, destination), goes_to.path)
            is_folder = found is not None and found.is_dir
    else:
        is_folder = os.path.isdir(destination)
    if not is_folder:
        raise InvalidInput(f"several sources go into a folder, and {destination} is none; make it first")


def _copy_each(
    chosen_host: HostChoice, sources: list[str], destination: str, goes_to: "_Remote | str"
) -> int:
    """Copy all of them before the first failure is reported, so that one bad name stops nothing."""
    failures: list[KohakuRiverError] = []
    skipped = False
    for source in sources:
        try:
            skipped |= _copy_one(chosen_host, source, destination, goes_to)
        except KohakuRiverError as error:
            failures.append(error)
    for failure in failures[1:]:
        print(f"Error: {neutralised(str(failure))}", file=sys.stderr)
    if failures:
        raise failures[0]
    return 1 if skipped else 0


def _copy_one(chosen_host: HostChoice, source: str, destination: str, goes_to: "_Remote | str") -> bool:
    """Return whether something was left out."""
    came_from = _place(source)
    with progress(f"Copying {source}") as shown:
        if isinstance(came_from, _Remote):
            copy = _begin(chosen_host, came_from, shown, source)
            _download(copy, came_from, destination)
        elif isinstance(goes_to, _Remote):
            copy = _begin(chosen_host, goes_to, shown, source)
            if came_from == _STREAM:
                _upload_stream(copy, goes_to)
            else:
                _upload(copy, source, goes_to)
    return bool(copy.skipped)


def _begin(chosen_host: HostChoice, remote: _Remote, shown: Progress, source: str) -> _Copy:
    client = chosen_host.client
    task_id = task_id_of(client, remote.ref)
    client.files.stat(task_id, "/")  # so that what is not found from here on is a path, and not the task
    return _Copy(client, task_id, shown, f"Copying {source}")


def _place(text: str) -> "_Remote | str":
    match = _REMOTE.fullmatch(text)
    if match is None:
        return text
    try:
        match["path"].encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"the path in {text[:200]!r} is not UTF-8; copy the folder that it is in instead"
        ) from error
    return _Remote(match["ref"], "/" + match["path"].lstrip("/"))


def _download(copy: _Copy, remote: _Remote, destination: str) -> None:
    from kohakuriver.client.streams.tree_unpacking import TreeUnpacking, only_file

    if remote.path == "/":
        raise InvalidInput("a whole workload is not copied at once; name the folders of it that you want")
    found = _seen(copy, remote.path) if remote.follows_link else _stat(copy, remote.path)
    if found is None:
        raise NotFound(f"there is no {remote.path} in task {copy.task_id}")
    path = remote.path + "/" if remote.follows_link and found.is_dir else remote.path
    if destination == _STREAM:
        with copy.client.files.download(copy.task_id, path) as pieces:
            counted = copy.counted(pieces)
            for piece in only_file(counted) if found.type == "file" else counted:
                write_all(1, piece)
        return
    target = _local_target(destination, remote, is_folder=found.is_dir)
    with copy.client.files.download(copy.task_id, path) as pieces:
        TreeUnpacking(target, copy.skip).unpack(copy.counted(pieces))


def _local_target(destination: str, remote: _Remote, *, is_folder: bool) -> str:
    """What the copy is to be called here; its folder is there."""
    if os.path.isdir(destination):
        if is_folder and remote.text.endswith("/."):
            return os.path.realpath(destination)
        return os.path.join(destination, remote.name)
    plain = destination.rstrip("/")
    if os.path.lexists(plain):
        if is_folder or destination.endswith("/"):
            raise Conflict(f"{plain} is here and is no folder; move it away, or name another destination")
        return plain
    if destination.endswith("/") and not is_folder:
        raise NotFound(f"there is no folder {destination} on this machine; make it first")
    parent = os.path.dirname(plain) or "."
    if not os.path.isdir(parent):
        raise NotFound(f"there is no folder {parent} on this machine; make it first")
    return plain


def _upload(copy: _Copy, source: str, remote: _Remote) -> None:
    from kohakuriver.client.streams.tree_packing import END, TreePacking

    try:
        is_folder = stat.S_ISDIR(os.lstat(source).st_mode)
    except OSError as error:
        raise NotFound(f"{source} cannot be copied: {error.strerror}") from error
    only_content = is_folder and source.endswith("/.")
    name = os.path.basename(os.path.abspath(source))
    if not name and not only_content:
        raise InvalidInput("a whole machine is not copied at once; name the folders of it that you want")
    target = _remote_target(copy, remote, "" if only_content else name, is_folder=is_folder)
    packing = TreePacking(target.owner, copy.skip)
    packed = packing.pack(source, target.path, itself=bool(target.name))
    _send(copy, chain(packed, [END]))


def _upload_stream(copy: _Copy, remote: _Remote) -> None:
    from kohakuriver.client.streams.tree_packing import END, TreePacking, put_below
    from kohakuriver.files.sparse import SparseWriter

    found = _seen(copy, remote.path)
    if found is not None and found.is_dir:
        _send(copy, chain(put_below(sys.stdin.buffer, remote.path.strip("/")), [END]))
        return
    target = _remote_target(copy, remote, remote.name, is_folder=False)
    # A tar stream says how long a file is before its content, so all of it must be known first.
    with tempfile.TemporaryFile() as spool:
        writer = SparseWriter(spool.fileno())
        while piece := sys.stdin.buffer.read(_PIECE_BYTES):
            writer.write(piece)
        writer.finish()
        spool.seek(0)
        packing = TreePacking(target.owner, copy.skip)
        _send(copy, chain(packing.pack_open_file(spool.fileno(), target.path), [END]))


def _remote_target(copy: _Copy, remote: _Remote, name: str, *, is_folder: bool) -> _Target:
    """Where the copy goes; `name` is what it is called in a folder that is there."""
    found = _seen(copy, remote.path)
    if found is not None and found.is_dir:
        return _Target(remote.path, name, (found.uid, found.gid))
    if found is not None and (is_folder or remote.follows_link):
        raise Conflict(f"{remote.path} in task {copy.task_id} is no folder; name another destination")
    if found is None and remote.text.endswith("/") and not is_folder:
        raise NotFound(f"there is no folder {remote.path} in task {copy.task_id}; make it first")
    parent = remote.path.rpartition("/")[0] or "/"
    folder = _seen(copy, parent)
    if folder is None or not folder.is_dir:
        raise NotFound(f"there is no folder {parent} in task {copy.task_id}; make it first")
    return _Target(parent, remote.name, (folder.uid, folder.gid))


def _seen(copy: _Copy, path: str) -> "FileRecord | None":
    """What is at a path, behind a link if that leads to a folder; None if there is nothing."""
    found = _stat(copy, path)
    if found is None or found.type != "symlink":
        return found
    try:
        behind = _stat(copy, f"{path}/.")
    except Conflict:  # it leads to a file
        return found
    return behind or found


def _stat(copy: _Copy, path: str) -> "FileRecord | None":
    try:
        return copy.client.files.stat(copy.task_id, path).value
    except NotFound:
        return None


def _send(copy: _Copy, pieces: Iterator[bytes]) -> None:
    """Unpack at the root: the engine refuses links that lead out of the folder in which it unpacks."""
    copy.client.files.upload(copy.task_id, "/", copy.counted(pieces))
