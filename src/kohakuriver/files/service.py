"""Work on the files of workloads, in threads of its own: storage that hangs takes these and no others.

Of one workload only some of them, so that the others' files stay within reach.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from kohakuriver.files.rooted_fs import RootedFs, rooted
from kohakuriver.files.system.first_process import FirstProcess, hold_first_process
from kohakuriver.models.errors import Unavailable

THREADS = 16
AT_ONCE = 4
"""How much may be under way on the files of one workload."""

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class FileService(Generic[Key]):
    """`first_pid` gives a workload's first process; raises NotFound or Conflict where none runs. Close it."""

    def __init__(self, first_pid: Callable[[Key], Awaitable[int]]) -> None:
        self._first_pid = first_pid
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="files")
        self._under_way: Counter[Key] = Counter()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hold(self, key: Key) -> FirstProcess:
        """Open the first process; the caller closes it."""
        return await hold_first_process(lambda: self._first_pid(key))

    async def perform(self, key: Key, work: Callable[[RootedFs], Result]) -> Result:
        """Run blocking work on a workload's file system. Once it has begun it ends, also for one who left."""
        if self._under_way[key] >= AT_ONCE:
            raise Unavailable(
                f"{AT_ONCE} file operations are under way here already; try again when one of them is done"
            )
        self._under_way[key] += 1
        loop = asyncio.get_running_loop()
        try:
            process = await self.hold(key)
        except BaseException:
            self._release(key)
            raise

        def over(_job: Future[Result]) -> None:
            process.close()
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it all who waited
                loop.call_soon_threadsafe(self._release, key)

        job = self.submit(_work_on, process, work)
        job.add_done_callback(over)
        return await asyncio.wrap_future(job)

    def submit(self, work: Callable[..., Result], *arguments: object) -> Future[Result]:
        """Run blocking work in one of the threads; it goes on when nobody waits for it any more."""
        return self._threads.submit(work, *arguments)

    def _release(self, key: Key) -> None:
        self._under_way[key] -= 1
        if not self._under_way[key]:
            del self._under_way[key]


def _work_on(process: FirstProcess, work: Callable[[RootedFs], Result]) -> Result:
    with rooted(process) as fs:
        return work(fs)
