"""An append-only file of records that survives any crash: a record that was waited for is never lost.

Layout: `KRJ1`, a line feed, then frames: length (4 bytes, little endian), CRC-32 of the payload (4), payload.
A torn end is ignored on opening. Rules:

- One thread writes, in the order of the calls; what comes in while it writes goes into the next write, with
  one fsync for all of it.
- After a failed write the file is not trusted: the next call writes a new one from the snapshot. So whoever
  appends a record must have put it into what `snapshot` gives before.
- The file is rewritten on opening and when it has grown past four times what it was after the last rewrite.
"""

import asyncio
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.descriptors import write_all
from kohakuriver.models.errors import InvalidInput, Unavailable
from kohakuriver.private_files import write_private
from kohakuriver.runner.agent.records import Record, decode_record, encode_record

_MAGIC = b"KRJ1\n"
_HEAD = struct.Struct("<II")
_MAX_FRAME_BYTES = 64 << 20
MIN_REWRITE_BYTES = 1 << 20
_log = structlog.get_logger(__name__)


class JournalFault(Unavailable):
    """A record could not be made durable; nothing may be done or said on the strength of it."""


@dataclass(slots=True)
class _Batch:
    """Frames that one write takes together."""

    frames: list[bytes]
    written: asyncio.Future[None]


class Journal:
    """Make it with `Journal(path, snapshot)`, read once with `load`, then append from one event loop."""

    def __init__(self, path: Path, snapshot: Callable[[], Sequence[Record]]) -> None:
        self._path = path
        self._snapshot = snapshot
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._lock = threading.Lock()
        self._collecting: _Batch | None = None
        self._descriptor = -1
        self._size_bytes = 0
        self._base_bytes = 0
        self._trusted = False
        self.fault: str | None = None

    def load(self) -> list[Record]:
        """Read what is there. Raises InvalidInput if the file is not a journal of this version."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return []
        if not data.startswith(_MAGIC):
            if _MAGIC.startswith(data):
                return []
            raise InvalidInput(f"{self._path} is no journal of this version; move it away to begin a new one")
        return [decode_record(payload) for payload in self._payloads(data)]

    async def append(self, *records: Record) -> None:
        """Return when the records are durable; raises JournalFault if they are not."""
        if not self._trusted or self._size_bytes > max(MIN_REWRITE_BYTES, 4 * self._base_bytes):
            await self.rewrite()
            return
        frames = [_frame(encode_record(record)) for record in records]
        with self._lock:
            batch = self._collecting
            if batch is None:
                collected: list[bytes] = []
                batch = self._collecting = _Batch(collected, self._submit(self._write_batch, collected))
            batch.frames.extend(frames)
        await asyncio.shield(batch.written)

    async def rewrite(self) -> None:
        """Replace the file by the snapshot as it is now; raises JournalFault."""
        data = _MAGIC + b"".join(_frame(encode_record(record)) for record in self._snapshot())
        with self._lock:
            # Later records must be written after the rewrite, not into the file that it replaces.
            self._collecting = None
            written = self._submit(self._replace, data)
            # Until a write fails again, calls that come after this one append to the new file.
            self._trusted, self._size_bytes, self._base_bytes = True, len(data), len(data)
        await asyncio.shield(written)

    def close(self) -> None:
        """Write what was appended and let go of the file."""
        self._thread.shutdown(wait=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _submit(self, work: Callable[..., None], *arguments: object) -> asyncio.Future[None]:
        written = asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        written.add_done_callback(_retrieve)
        return written

    def _write_batch(self, frames: list[bytes]) -> None:
        with self._lock:
            if self._collecting is not None and self._collecting.frames is frames:
                self._collecting = None
            data = b"".join(frames)
        with _fault_of(self):
            if self._descriptor < 0 or not self._trusted:
                raise OSError("an earlier write failed")
            self._size_bytes += len(data)
            write_all(self._descriptor, data)
            os.fdatasync(self._descriptor)

    def _replace(self, data: bytes) -> None:
        with _fault_of(self):
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
            write_private(self._path, data)
            reach(CrashPoint.RUNNER_JOURNAL_REPLACED)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            self._trusted = True

    def _payloads(self, data: bytes) -> Iterator[bytes]:
        position = len(_MAGIC)
        while position + _HEAD.size <= len(data):
            length, checksum = _HEAD.unpack_from(data, position)
            payload = data[position + _HEAD.size : position + _HEAD.size + length]
            # No record is empty; a file system may leave zeros where data should have come.
            if (
                not 0 < length <= _MAX_FRAME_BYTES
                or len(payload) != length
                or zlib.crc32(payload) != checksum
            ):
                break
            yield payload
            position += _HEAD.size + length
        if position != len(data):
            _log.warning("journal_end_torn", path=str(self._path), ignored_bytes=len(data) - position)


class _fault_of:
    """Context of the writing thread in which an error of the file becomes the journal's fault."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            self._journal.fault = None
        elif isinstance(error, OSError):
            self._journal._trusted = False
            reason = error.strerror or str(error)
            self._journal.fault = f"the runner cannot write its journal {self._journal._path}: {reason}"
            raise JournalFault(self._journal.fault) from error


def _frame(payload: bytes) -> bytes:
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def _retrieve(written: asyncio.Future[None]) -> None:
    """Mark the outcome as seen; whoever waits still gets it, and a waiter may have been cancelled."""
    if not written.cancelled():
        written.exception()
