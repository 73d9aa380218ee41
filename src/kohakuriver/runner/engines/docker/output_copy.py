"""Copies a workload's output from the engine's journal to its files while it runs.

The engine's journal is the truth: a copy may stop at any byte and begin again from the files' sizes.
Reading and writing happen in threads of the engine's own, because the files may be on a network file system
that hangs.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from kohakuriver.models.errors import EngineFault
from kohakuriver.runner.engines.docker.engine_journal import JournalReader
from kohakuriver.runner.engines.docker.output_files import OutputFile

# Between looks at a journal that did not grow; the first value after each growth.
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.25


class OutputCopy:
    """One workload's copy; `follow` until the workload has ended, then `finish` once."""

    def __init__(self, journal: Path, stdout: Path, stderr: Path, executor: Executor) -> None:
        self._paths = (journal, stdout, stderr)
        self._executor = executor
        self._reader: JournalReader | None = None
        self._files: tuple[OutputFile, OutputFile] | None = None

    async def follow(self, ended: asyncio.Event) -> None:
        """Copy as the journal grows; return soon after `ended` is set."""
        pause = _FIRST_PAUSE_SECONDS
        while not ended.is_set():
            if self._has_more():
                moved = await self._in_thread(self._pump_once)
                pause = _FIRST_PAUSE_SECONDS
                if moved:
                    continue
            try:
                async with asyncio.timeout(pause):
                    await ended.wait()
            except TimeoutError:
                pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)

    async def finish(self) -> tuple[int, int]:
        """Copy the rest; return the bytes of both streams. The engine has closed the journal by now."""
        await self._in_thread(self._pump_all)
        stdout, stderr = self._opened()[1]
        return stdout.size_bytes, stderr.size_bytes

    def close(self) -> None:
        # Not in the pool, whose threads may all hang: closing descriptors does not wait for storage here.
        if self._reader is not None:
            self._reader.close()
        for file in self._files or ():
            file.close()

    async def _in_thread(self, work: Callable[[], bool]) -> bool:
        """Run a step to its end even when cancelled: two threads must never write the same file."""
        step = asyncio.get_running_loop().run_in_executor(self._executor, work)
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            await asyncio.wait([step])
            if not step.cancelled():
                step.exception()  # seen, and of no account: the copy begins again from the files
            raise

    def _has_more(self) -> bool:
        """The engine makes the journal when it starts the workload; if it cannot be seen `finish` fails."""
        if self._reader is None:
            return os.path.exists(self._paths[0])
        return self._reader.has_more()

    def _pump_all(self) -> bool:
        while self._pump_once():
            continue
        return True

    def _pump_once(self) -> bool:
        reader, (stdout, stderr) = self._opened()
        pieces = reader.read()
        if pieces.stdout:
            stdout.take(pieces.stdout)
        if pieces.stderr:
            stderr.take(pieces.stderr)
        return bool(pieces.stdout or pieces.stderr)

    def _opened(self) -> tuple[JournalReader, tuple[OutputFile, OutputFile]]:
        journal, stdout, stderr = self._paths
        if self._files is None:
            self._files = (OutputFile(stdout), OutputFile(stderr))
        if self._reader is None:
            try:
                self._reader = JournalReader(journal)
            except OSError as error:
                raise EngineFault(
                    f"the engine's journal {journal} cannot be read ({error.strerror}); "
                    "the runner needs the rights to read the engine's data directory"
                ) from error
        return self._reader, self._files
