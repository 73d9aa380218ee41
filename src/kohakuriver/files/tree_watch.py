"""Folders of a workload watched with all that is below them: what happens there, by paths. Blocking.

Rules: the number of watched folders is bounded, and so is what the kernel keeps of events; where either
bound is met the watcher is told that it must look for itself (`Lost`). A folder that is new is looked
through once it is watched, so nothing that was put into it before is missed.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kohakuriver.files.faults import faults_about, shown
from kohakuriver.files.looking import reopened
from kohakuriver.files.rooted_fs import RootedFs, rooted, split_path
from kohakuriver.files.system.first_process import FirstProcess
from kohakuriver.files.system.inotify import Inotify, Mask, RawEvent
from kohakuriver.models.enums import FileChange
from kohakuriver.models.errors import KohakuRiverError, NoCapacity

MAX_FOLDERS = 8192
_MAX_READS = 128
"""More than the kernel keeps by default; one whose events do not end is served piece by piece."""


@dataclass(frozen=True, slots=True)
class Change:
    """`path` is the new one for MOVE, `old_path` the one before."""

    kind: FileChange
    path: bytes
    is_dir: bool
    old_path: bytes | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """From here on changes may be missing; the sentence says why."""

    sentence: str


News = Change | Lost


@dataclass(slots=True)
class _Folder:
    """A watched folder. `only`: names that are asked for, None for all and what is below."""

    path: bytes
    only: set[bytes] | None


class TreeWatch:
    """Call `add` for each path, then `take` when the descriptor is readable. Close it once.

    Calls from several threads wait for each other, so closing is safe while another works.
    """

    def __init__(
        self, fs: RootedFs, max_folders: int = MAX_FOLDERS, let_go: Callable[[], None] = lambda: None
    ) -> None:
        """`let_go` is called at the close, when the file system is needed no more."""
        self._fs = fs
        self._let_go = let_go
        self._max_folders = max_folders
        with faults_about(b"/"):
            self._inotify = Inotify()
        self._folders: dict[int, _Folder] = {}
        self._seen: set[bytes] = set()
        """Paths that were reported from looking, whose own event is still to come."""
        self._told_full = False
        self._turn = threading.Lock()
        self._closed = False

    @property
    def descriptor(self) -> int:
        return self._inotify.descriptor

    def close(self) -> None:
        with self._turn:
            if not self._closed:
                self._closed = True
                self._inotify.close()
                self._let_go()

    def add(self, path: bytes) -> list[Lost]:
        """Watch a folder with all below it, or one file; NotFound if there is nothing."""
        with self._turn:
            return [] if self._closed else self._add(b"/" + path.strip(b"/"))

    def take(self) -> list[News]:
        """Return what happened since the last call, repeated modifications of one file as one."""
        with self._turn:
            return [] if self._closed else list(self._take())

    def _add(self, path: bytes) -> list[Lost]:
        try:
            with self._fs.opened(path, os.O_DIRECTORY) as folder:
                return [news for news in self._watch_tree(folder, path) if isinstance(news, Lost)]
        except KohakuRiverError:
            with self._fs.opened(path, os.O_NOFOLLOW):
                parent, name = split_path(path)
        with self._fs.opened(parent, os.O_DIRECTORY) as folder, faults_about(parent):
            self._watch(folder, parent, {name})
        return []

    def _take(self) -> Iterator[News]:
        # What was seen before the kernel's queue was emptied has its event in what is read now, or has none.
        settled = set(self._seen)
        modified: set[bytes] = set()
        for news in self._read(self._queued()):
            if isinstance(news, Change) and news.kind is FileChange.MODIFY:
                if news.path in modified:
                    continue
                modified.add(news.path)
            yield news
        self._seen -= settled

    def _queued(self) -> list[RawEvent]:
        events: list[RawEvent] = []
        for _ in range(_MAX_READS):
            more = self._inotify.read()
            events += more
            if not more:
                break
        return events

    def _read(self, events: list[RawEvent]) -> Iterator[News]:
        arrivals = {event.cookie: event for event in events if event.mask & Mask.MOVED_TO}
        joined: set[int] = set()
        for event in events:
            folder = self._folders.get(event.watch)
            if event.mask & Mask.QUEUE_OVERFLOW:
                self._seen.clear()
                yield Lost("more happened than was taken away; look at the folders again")
            elif folder is None:
                continue
            elif event.mask & (Mask.IGNORED | Mask.UNMOUNT):
                self._folders.pop(event.watch, None)
            elif event.mask & Mask.MOVED_FROM:
                arrival = arrivals.get(event.cookie)
                target = self._path_of(arrival) if arrival is not None else None
                if target is not None:
                    joined.add(event.cookie)
                yield from self._left(event, folder, target)
            elif not (event.mask & Mask.MOVED_TO and event.cookie in joined):
                yield from self._happened(event, folder)

    def _happened(self, event: RawEvent, folder: _Folder) -> Iterator[News]:
        path = _joined(folder.path, event.name)
        is_dir = bool(event.mask & Mask.IS_FOLDER)
        if not event.name or not _wanted(folder, event.name):
            return
        if event.mask & (Mask.CREATE | Mask.MOVED_TO):
            if path in self._seen:
                self._seen.discard(path)
                return
            yield Change(FileChange.CREATE, path, is_dir)
            if is_dir and folder.only is None:
                yield from self._look_into(path)
        elif event.mask & Mask.DELETE:
            self._seen.discard(path)
            yield Change(FileChange.DELETE, path, is_dir)
        elif event.mask & Mask.MODIFY:
            yield Change(FileChange.MODIFY, path, is_dir)

    def _left(self, event: RawEvent, folder: _Folder, target: bytes | None) -> Iterator[News]:
        """One end of a move: within what is watched it is a MOVE, out of it a DELETE."""
        path = _joined(folder.path, event.name)
        is_dir = bool(event.mask & Mask.IS_FOLDER)
        self._seen.discard(path)
        if is_dir:
            self._moved(path, target)
        wanted = _wanted(folder, event.name)
        if target is not None:
            kind = FileChange.MOVE if wanted else FileChange.CREATE
            yield Change(kind, target, is_dir, path if wanted else None)
        elif wanted:
            yield Change(FileChange.DELETE, path, is_dir)

    def _path_of(self, event: RawEvent) -> bytes | None:
        """Where an arrival arrived; None where nobody asked about that name."""
        folder = self._folders.get(event.watch)
        if folder is None or not _wanted(folder, event.name):
            return None
        return _joined(folder.path, event.name)

    def _moved(self, path: bytes, target: bytes | None) -> None:
        """The watches below a moved folder stay with it: they get its new path, or are let go."""
        for watch, folder in list(self._folders.items()):
            if folder.path != path and not folder.path.startswith(path + b"/"):
                continue
            if target is not None:
                folder.path = target + folder.path[len(path) :]
                continue
            del self._folders[watch]
            with contextlib.suppress(OSError):  # it ended by itself
                self._inotify.remove(watch)

    def _look_into(self, path: bytes) -> Iterator[News]:
        try:
            with self._fs.opened(path, os.O_DIRECTORY | os.O_NOFOLLOW) as folder:
                for news in self._watch_tree(folder, path):
                    if isinstance(news, Change):
                        self._seen.add(news.path)
                    yield news
        except KohakuRiverError:
            return  # gone again, or no folder any more; its own event says so

    def _watch_tree(self, folder: int, path: bytes) -> Iterator[News]:
        """Watch a folder and those below; yields what is in it as CREATE, for those who did not know it."""
        waiting = [path]
        while waiting:
            here = waiting.pop()
            try:
                if here == path:
                    yield from self._watch_one(folder, here, waiting)
                else:
                    with self._fs.opened(here, os.O_DIRECTORY | os.O_NOFOLLOW) as below:
                        yield from self._watch_one(below, here, waiting)
            except NoCapacity as error:
                if not self._told_full:
                    self._told_full = True
                    yield Lost(str(error))
                return
            except KohakuRiverError:
                continue  # it went, or belongs to the kernel

    def _watch_one(self, folder: int, path: bytes, waiting: list[bytes]) -> Iterator[News]:
        with faults_about(path):
            self._watch(folder, path, None)
        with reopened(folder, path, os.O_DIRECTORY) as readable, os.scandir(readable) as entries:
            for entry in entries:
                found = _joined(path, os.fsencode(entry.name))
                is_dir = entry.is_dir(follow_symlinks=False)
                if is_dir:
                    waiting.append(found)
                yield Change(FileChange.CREATE, found, is_dir)

    def _watch(self, folder: int, path: bytes, only: set[bytes] | None) -> None:
        if len(self._folders) >= self._max_folders:
            raise NoCapacity(
                f"{self._max_folders} folders are watched and no more can be, so changes in {shown(path)} "
                "are not told; watch fewer folders"
            )
        try:
            watch = self._inotify.add(folder)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise NoCapacity(
                    f"the node can watch no more folders, so changes in {shown(path)} are not told; "
                    "raise fs.inotify.max_user_watches there"
                ) from error
            raise
        known = self._folders.get(watch)
        if known is not None and (known.only is None or only is None):
            only = None
        elif known is not None and only is not None:
            only |= known.only or set()
        self._folders[watch] = _Folder(path, only)


def open_watch(process: FirstProcess, paths: list[bytes]) -> tuple[TreeWatch, list[Lost]]:
    """Watch paths of a workload; the caller closes what it gets. Raises NotFound if one is not there."""
    held = contextlib.ExitStack()
    with contextlib.ExitStack() as undo:
        undo.callback(held.close)
        watch = TreeWatch(held.enter_context(rooted(process)), let_go=held.close)
        undo.callback(watch.close)
        lost = [news for path in paths for news in watch.add(path)]
        undo.pop_all()
    return watch, lost


def _joined(folder: bytes, name: bytes) -> bytes:
    return folder.rstrip(b"/") + b"/" + name


def _wanted(folder: _Folder, name: bytes) -> bool:
    return folder.only is None or name in folder.only
