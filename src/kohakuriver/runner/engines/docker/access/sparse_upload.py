"""A tar stream into a workload whose sparse files stay sparse: the engine would write their holes out.

The engine gets the stream in parts that end with an empty file in the place of a sparse one. That one is
then filled here, in the workload's own file system, hole by hole; so it never takes more room than it has
content. The folders that this put something into get their times once more at the end.
"""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable

from kohakuriver.descriptors import write_all
from kohakuriver.files.faults import faults_about
from kohakuriver.files.rooted_fs import rooted
from kohakuriver.files.system.first_process import FirstProcess
from kohakuriver.models.errors import Conflict, EngineFault
from kohakuriver.streams.sparse_cuts import SparseCuts, SparseFile
from kohakuriver.streams.sparse_tar import MapReader
from kohakuriver.streams.tar_end import BLOCK

_PIECE_BYTES = 1 << 20
_END = bytes(2 * BLOCK)

Put = Callable[[AsyncIterator[bytes]], Awaitable[None]]
Hold = Callable[[], Awaitable[FirstProcess]]


class SparseUpload:
    """`put` has the engine unpack a stream below `folder`, `hold` gives the workload's first process."""

    def __init__(self, content: AsyncIterator[bytes], folder: str, put: Put, hold: Hold) -> None:
        self._content = content
        self._folder = folder
        self._put = put
        self._hold = hold
        self._cuts = SparseCuts()
        self._rest = b""
        self._sparse: SparseFile | None = None

    async def run(self) -> None:
        was_cut = False
        while True:
            self._sparse = None
            await self._put(self._up_to_cut())
            if self._sparse is None:
                break
            was_cut = True
            await self._fill(self._sparse)
        if was_cut and self._cuts.folders:
            await self._put(_once(bytes(self._cuts.folders) + _END))

    async def _up_to_cut(self) -> AsyncIterator[bytes]:
        """The stream as far as the next sparse file, or to its end."""
        while piece := await self._next():
            passed, self._sparse, self._rest = self._cuts.take(piece)
            if self._sparse is not None:
                yield passed + self._sparse.empty + _END
                return
            if passed:
                yield passed
        if held := self._cuts.rest():
            yield held

    async def _next(self) -> bytes:
        """What comes next, as it came; empty at the end."""
        piece, self._rest = self._rest, b""
        while not piece:
            try:
                piece = await anext(self._content)
            except StopAsyncIteration:
                break
        return piece

    async def _exactly(self, size: int) -> bytes:
        taken = bytearray()
        while len(taken) < size:
            piece = await self._next()
            if not piece:
                raise EngineFault("the tar stream ends in the middle of a file")
            needed = size - len(taken)
            taken += piece[:needed]
            self._rest = piece[needed:]
        return bytes(taken)

    async def _fill(self, sparse: SparseFile) -> None:
        path = os.fsencode(self._folder.rstrip("/")) + b"/" + sparse.name.lstrip(b"/")
        process = await self._hold()
        try:
            file = await asyncio.to_thread(_open, process, path)
            try:
                with faults_about(path):
                    await self._write(file, sparse)
            finally:
                os.close(file)
        finally:
            process.close()
        await self._exactly(-sparse.stored_bytes % BLOCK)

    async def _write(self, file: int, sparse: SparseFile) -> None:
        made = os.fstat(file)
        reader = MapReader(sparse.size)
        while reader.parts is None:
            reader.take(await self._exactly(BLOCK))
        if reader.bytes_taken + sum(length for _, length in reader.parts) != sparse.stored_bytes:
            raise EngineFault("the tar stream holds a map of a sparse file that cannot be")
        await asyncio.to_thread(os.ftruncate, file, sparse.size)
        for begin, length in reader.parts:
            for place in range(begin, begin + length, _PIECE_BYTES):
                piece = await self._exactly(min(_PIECE_BYTES, begin + length - place))
                await asyncio.to_thread(write_all, file, piece, place)
        await asyncio.to_thread(os.utime, file, ns=(made.st_atime_ns, made.st_mtime_ns))


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _open(process: FirstProcess, path: bytes) -> int:
    """The file that the engine has just made there, and no other."""
    with rooted(process) as fs, fs.opened(path, os.O_NOFOLLOW) as found, faults_about(path):
        facts = os.fstat(found)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size or facts.st_nlink != 1:
            raise Conflict(f"{os.fsdecode(path)} was changed while it was copied; copy it again")
        return os.open(f"/proc/self/fd/{found}", os.O_WRONLY | os.O_CLOEXEC)
