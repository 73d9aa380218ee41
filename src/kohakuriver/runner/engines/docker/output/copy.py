"""Copies a workload's output from the engine's journal to its files while it runs.

The engine's journal is the truth: a copy may stop at any byte and begin again from the files' sizes. Storage
that is full or unreachable stops the copy and not the workload: the copy says so in `fault`, and goes on.
Reading and writing happen in threads of the engine's own, because the files may be on a network file system
that hangs.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import structlog

from kohakuriver.models.enums import Stream
from kohakuriver.models.output.places import TIMES_FILE
from kohakuriver.models.output.times import Span
from kohakuriver.pauses import growing_pauses
from kohakuriver.runner.engines.contract.faults import NodeFault, StorageUnavailable
from kohakuriver.runner.engines.docker.output.engine_journal import JournalReader
from kohakuriver.runner.engines.docker.output.files import AppendedFile, OutputFile
from kohakuriver.runner.engines.docker.output.init_words import InitWords
from kohakuriver.runner.engines.docker.output.times_file import TimesFile

# Between looks at a journal that did not grow; the first value after each growth.
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.25
# Between tries while the storage takes nothing.
FIRST_STUCK_SECONDS = 0.5
LONGEST_STUCK_SECONDS = 5.0

_log = structlog.get_logger()


def _stuck_pauses() -> Iterator[float]:
    return growing_pauses(FIRST_STUCK_SECONDS, LONGEST_STUCK_SECONDS, jitter=0)


def _look_pauses() -> Iterator[float]:
    return growing_pauses(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, growth=1.5, jitter=0)


@dataclass(frozen=True, slots=True)
class OutputPaths:
    """`starts`: folders of the administrator's, below which no link is followed."""

    stdout: Path
    stderr: Path
    starts: tuple[Path, ...] = ()

    @property
    def times(self) -> Path:
        return self.stdout.with_name(TIMES_FILE)

    @property
    def all(self) -> tuple[Path, ...]:
        return self.times, self.stdout, self.stderr


@dataclass(frozen=True, slots=True)
class _Files:
    times: TimesFile
    stdout: OutputFile
    stderr: OutputFile

    def __iter__(self) -> Iterator[AppendedFile]:
        """In the order in which they are written."""
        return iter((self.times, self.stdout, self.stderr))


class OutputCopy:
    """One workload's copy; `follow` until the workload has ended, then `finish` once.

    `fault` is a sentence while the storage takes nothing.
    """

    def __init__(self, journal: Path, output: OutputPaths, executor: Executor) -> None:
        self.fault: str | None = None
        self._journal = journal
        self._output = output
        self._executor = executor
        self._reader: JournalReader | None = None
        self._files: _Files | None = None
        self._stuck_pauses = _stuck_pauses()
        self._init_words = InitWords()
        self._rest = (b"", b"")
        self._exit_code = 0
        self._rest_taken = False

    async def follow(self, ended: asyncio.Event) -> None:
        """Copy as the journal grows; return soon after `ended` is set."""
        pauses = _look_pauses()
        while not ended.is_set():
            if self.fault or self._has_more():
                moved = await self._step(self._pump_once)
                pauses = _look_pauses()
                if moved:
                    continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(next(self._stuck_pauses if self.fault else pauses)):
                    await ended.wait()

    async def finish(self, rest: tuple[bytes, bytes] = (b"", b""), exit_code: int = 0) -> tuple[int, int]:
        """Copy what is missing, however long the storage takes; return the bytes of both streams.

        The engine has closed the journal by now. `rest`: what each stream holds after the journal's end.
        """
        self._rest, self._exit_code = rest, exit_code
        while not await self._step(self._pump_all):
            await self._pause_while_stuck()
        files = self._opened()[1]
        return files.stdout.size_bytes, files.stderr.size_bytes

    def not_executed(self, command: str) -> str | None:
        """Why the command was never executed, if it was not; to be asked after `finish`."""
        return self._init_words.reason(self._exit_code, command)

    def close(self) -> None:
        # Not in the pool, whose threads may all hang: closing descriptors does not wait for storage here.
        if self._reader is not None:
            self._reader.close()
        for file in self._files or ():
            with contextlib.suppress(OSError):  # late news of a network file system; `settle` asked for it
                file.close()
        self._reader = self._files = None
        self._init_words = InitWords()
        self._rest_taken = False

    async def _pause_while_stuck(self) -> None:
        await asyncio.sleep(next(self._stuck_pauses))

    async def _step(self, work: Callable[[], bool]) -> bool:
        """Do a step of the copy; False: nothing moved, or the storage takes nothing, as `fault` tells."""
        try:
            moved = await self._in_thread(work)
        except StorageUnavailable as error:
            if self.fault is None:
                _log.warning("output_waits", error=str(error))
            self.fault = str(error)
            return False
        self.fault, self._stuck_pauses = None, _stuck_pauses()
        return moved

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
            return os.path.exists(self._journal)
        return self._reader.has_more()

    def _pump_all(self) -> bool:
        while self._pump_once():
            continue
        self._take_rest()
        try:
            for file in self._opened()[1]:
                file.settle()
        except StorageUnavailable:
            self.close()
            raise
        return True

    def _take_rest(self) -> None:
        if not self._rest_taken:
            self._rest_taken = True
            files = self._opened()[1]
            files.times.take(
                Span(stream, None, len(rest)) for stream, rest in zip(Stream, self._rest, strict=True) if rest
            )
            files.stdout.take([self._rest[0]])
            words = self._init_words
            files.stderr.take([*words.pass_on([self._rest[1]]), words.end(self._exit_code)])
        self._flush()

    def _pump_once(self) -> bool:
        reader, files = self._opened()
        # First what an earlier step could not write.
        self._flush()
        pieces = reader.read()
        files.times.take(pieces.spans())
        files.stdout.take(pieces.stdout)
        files.stderr.take(self._init_words.pass_on(pieces.stderr))
        self._flush()
        return bool(pieces.stdout or pieces.stderr)

    def _flush(self) -> None:
        try:
            for file in self._files or ():
                file.flush()
        except StorageUnavailable:
            self._begin_again_if_lost()
            raise

    def _begin_again_if_lost(self) -> None:
        """After an error of the storage, what it took before may be gone as well."""
        try:
            for file in self._files or ():
                file.settle()
        except StorageUnavailable:
            self.close()

    def _opened(self) -> tuple[JournalReader, _Files]:
        journal = self._journal
        if self._files is None:
            self._files = _open_files(self._output)
        if self._reader is None:
            try:
                self._reader = JournalReader(journal)
            except OSError as error:
                raise NodeFault(
                    f"the engine's journal {journal} cannot be read ({error.strerror}); "
                    "the runner needs the rights to read the engine's data directory"
                ) from error
        return self._reader, self._files


def _open_files(output: OutputPaths) -> _Files:
    with contextlib.ExitStack() as opened:
        files = _Files(
            opened.enter_context(contextlib.closing(TimesFile(output.times, output.starts))),
            opened.enter_context(contextlib.closing(OutputFile(output.stdout, output.starts))),
            opened.enter_context(contextlib.closing(OutputFile(output.stderr, output.starts))),
        )
        opened.pop_all()
        return files
