"""One inotify instance: watches on descriptors, and events as values (inotify(7)). `read` never blocks."""

import os
import struct
from dataclasses import dataclass
from enum import IntFlag

from kohakuriver.files.system.calls import inotify_add_watch, inotify_init, inotify_rm_watch

_HEAD = struct.Struct("=iIII")
_BUFFER_BYTES = 64 << 10


class Mask(IntFlag):
    MODIFY = 0x2
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    MOVE_SELF = 0x800
    UNMOUNT = 0x2000
    QUEUE_OVERFLOW = 0x4000
    IGNORED = 0x8000
    ONLY_FOLDERS = 0x01000000
    IS_FOLDER = 0x40000000


WATCHED = (
    Mask.MODIFY
    | Mask.MOVED_FROM
    | Mask.MOVED_TO
    | Mask.CREATE
    | Mask.DELETE
    | Mask.DELETE_SELF
    | Mask.MOVE_SELF
    | Mask.ONLY_FOLDERS
)


@dataclass(frozen=True, slots=True)
class RawEvent:
    """`watch` -1 with QUEUE_OVERFLOW: the kernel had to drop events. `cookie` joins both ends of a move."""

    watch: int
    mask: Mask
    cookie: int
    name: bytes


class Inotify:
    def __init__(self) -> None:
        self.descriptor = inotify_init(os.O_NONBLOCK | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.descriptor)

    def add(self, folder: int) -> int:
        """Watch the folder that a descriptor stands for; OSError with ENOSPC at the machine's limit."""
        return inotify_add_watch(self.descriptor, b"/proc/self/fd/%d" % folder, WATCHED)

    def remove(self, watch: int) -> None:
        inotify_rm_watch(self.descriptor, watch)

    def read(self) -> list[RawEvent]:
        """Return what happened since the last call, in order; empty if nothing did."""
        try:
            data = os.read(self.descriptor, _BUFFER_BYTES)
        except BlockingIOError:
            return []
        events = []
        place = 0
        while place < len(data):
            watch, mask, cookie, length = _HEAD.unpack_from(data, place)
            place += _HEAD.size
            name = data[place : place + length].rstrip(b"\0")
            place += length
            events.append(RawEvent(watch, Mask(mask), cookie, name))
        return events
