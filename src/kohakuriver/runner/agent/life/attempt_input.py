"""An attempt's standard input on its way to its engine: what came with the order, or what is sent meanwhile.

What is sent is counted from its first byte, so that who sends goes on where it stopped after a connection
broke. The count is this process's: one that dies in the middle leaves an input that is cut off, which the
next one finds in the journal, and the attempt has failed then, however its command ended.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from kohakuriver.broadcast import Broadcast
from kohakuriver.models.errors import Conflict, KohakuRiverError
from kohakuriver.models.spec.task_files import ABSENCE_SECONDS, INPUT_CUT_OFF
from kohakuriver.runner.agent.book import Attempt
from kohakuriver.runner.agent.durable_book import DurableBook
from kohakuriver.runner.agent.records import InputGiven
from kohakuriver.runner.engines.contract.engine import Engine
from kohakuriver.runner.engines.contract.inputs import InputPipe


class AttemptInput:
    """`open` before the command starts, `give` while it runs, `abandon` when it is over."""

    def __init__(self, attempt: Attempt, engine: Engine, book: DurableBook) -> None:
        self._attempt = attempt
        self._engine = engine
        self._book = book
        self._pipe: InputPipe | None = None
        self._was_unreachable = False
        self._is_complete = False
        self._sender: object | None = None
        self._left_at = 0.0
        self._news = Broadcast()
        self._writing = asyncio.Lock()
        self.taken = 0
        self.is_over = attempt.input_given
        """Nothing more is wanted of it."""

    async def open(self) -> None:
        """Have it open. Where it was so before, the engine was gone since, and nobody knows what it kept."""
        spec = self._attempt.spec
        if spec is None or not spec.has_input or self._attempt.input_given:
            return
        if self._pipe is not None:
            self._was_unreachable = True
        else:
            self._pipe = await self._engine.inputs.open(*self._attempt.key)

    async def give(self) -> str | None:
        """Give all of it to the command; returns why that could not be done."""
        spec = self._attempt.spec
        if spec is None or not spec.has_input or self._attempt.input_given:
            return None
        if self._pipe is None:
            return f"{INPUT_CUT_OFF}: its runner was restarted before all of it had come"
        if self._was_unreachable:
            return f"{INPUT_CUT_OFF}: the engine was unreachable while the command was started"
        self._left_at = asyncio.get_running_loop().time()
        try:
            if spec.stdin is not None:
                await self._take(spec.stdin)
            elif (absence := await self._until_complete()) is not None:
                return absence
            await self._pipe.end()
            await self._book.write_surely(InputGiven(*self._attempt.key))
            self._end()
            await self._pipe.settle()
        except KohakuRiverError as error:
            return f"{INPUT_CUT_OFF}: {error}"
        return None

    async def abandon(self) -> None:
        """The command has ended, or never began."""
        self._end()
        if self._pipe is not None:
            await self._pipe.close()

    @contextmanager
    def sent_by(self, sender: object) -> Iterator[None]:
        """While somebody sends; whoever comes later takes it over."""
        self._sender = sender
        self._news.wake_all()
        try:
            yield
        finally:
            if self._sender is sender:
                self._sender = None
                self._left_at = asyncio.get_running_loop().time()
                self._news.wake_all()

    async def put(self, sender: object, data: bytes) -> None:
        """Take the next bytes; waits while the command does not read them. Raises Conflict, Unavailable."""
        async with self._writing:
            if self._sender is not sender:
                raise Conflict("somebody else sends the input of this task now")
            if not self.is_over:
                await self._take(data)

    def complete(self, sender: object) -> None:
        """That was all."""
        if self._sender is sender:
            self._is_complete = True
            self._news.wake_all()

    async def news(self, seen: int) -> None:
        """Return once more than `seen` bytes were taken, or it is over."""
        while self.taken <= seen and not self.is_over:
            await self._news.wait()

    async def _take(self, data: bytes) -> None:
        if self._pipe is None:
            raise Conflict("the task is not ready for its input yet")
        # First, for who is cut off while it waits has handed it over all the same.
        self.taken += len(data)
        self._news.wake_all()
        if not await self._pipe.write(data):
            self._is_complete = True
            self._end()

    async def _until_complete(self) -> str | None:
        clock = asyncio.get_running_loop().time
        while not self._is_complete:
            left = None if self._sender is not None else self._left_at + ABSENCE_SECONDS - clock()
            if left is not None and left <= 0:
                return f"{INPUT_CUT_OFF}: who sent it was gone for {ABSENCE_SECONDS:.0f} s"
            try:
                async with asyncio.timeout(left):
                    await self._news.wait()
            except TimeoutError:
                continue
        return None

    def _end(self) -> None:
        self.is_over = True
        self._news.wake_all()
