"""Which sandbox serves whom: a few ready ones, more made while workloads wait, clean ones used again.

Rules: one workload at a time; what is given back goes to whoever waits longest, else stays idle; idle ones
beyond the pool size go after a quiet time; a sandbox with a trace of its workload is destroyed. The keeper is
the only maker, and it holds back while the node is busy taking and giving. Nobody waits for ever: each try to
make one has an end (`making_time`), and whoever waits gets its sandbox or its error. What cannot be removed
now is doomed and tried again. A keeper that breaks says so in `faults` and begins again.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.models.errors import KohakuRiverError, Unavailable
from kohakuriver.pauses import Pause
from kohakuriver.runner.engines.docker.sandboxes.containers import Sandbox, SandboxContainers
from kohakuriver.runner.engines.docker.sandboxes.making_time import MakingTime

_MAKERS = 3
# Making one costs as much as a few short tasks: while sandboxes come back, more makers hold them up.
_MAKERS_BESIDE_RETURNS = 1
# After a take, a sandbox in use is likely to come back before a new one would be ready.
_REFILL_SECONDS = 0.4
_TIDY_PAUSE_SECONDS = 1.0
# For an engine that hangs; what it makes afterwards the next runner finds and removes.
_STOP_SECONDS = 10.0
_SHORTEST_REST_SECONDS = 0.05

_log = structlog.get_logger()


def _now() -> float:
    """Seconds on the clock of the event loop, which is what the keeper's rests are measured by."""
    return asyncio.get_running_loop().time()


class SandboxPool:
    """`open`, then any number of `take` and `give_back`, then `close`."""

    def __init__(self, containers: SandboxContainers, size: int, idle_trim_seconds: float) -> None:
        self.making_time = MakingTime()
        self._containers = containers
        self._size = size
        self._trim_seconds = idle_trim_seconds
        self._idle: deque[Sandbox] = deque()
        self._waiting: deque[asyncio.Future[Sandbox]] = deque()
        self._doomed: set[str] = set()
        self._making = 0
        self._tidying = False
        self._changed = asyncio.Event()
        self._last_use = 0.0
        self._last_return = float("-inf")
        self._make_pause = Pause()  # nothing is made before it is over, unless somebody waits
        self._tidy_after = 0.0
        self._fault: str | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def open(self, left: Iterable[str]) -> None:
        """Check the sandboxes that an earlier runner left idle, keep the clean ones, begin to fill up."""
        for container_id in left:
            await self._readopt(container_id)
        self._keeper = asyncio.create_task(self._keep(), name="sandbox pool")

    async def close(self) -> None:
        """Remove all that is idle; what serves a workload stays."""
        await self.stop_keeping()
        self._fail_waiting(Unavailable("the runner is stopping"))
        while self._idle:
            await self._discard(self._idle.popleft().id)
        for container_id in tuple(self._doomed):
            await self._discard(container_id)

    async def stop_keeping(self) -> None:
        """Make no more, and let what is being made be finished: cut short, the engine would still make it."""
        if self._keeper is None:
            return
        keeper, self._keeper = self._keeper, None
        self._changed.set()
        await asyncio.wait([keeper], timeout=_STOP_SECONDS)
        keeper.cancel()
        await asyncio.wait([keeper])

    @property
    def idle(self) -> tuple[Sandbox, ...]:
        """Those that are ready and serve nobody; the one that was used last is the last."""
        return tuple(self._idle)

    def faults(self) -> list[str]:
        return [self._fault] if self._fault else []

    async def take(self) -> Sandbox:
        """Return a sandbox for one workload: a ready one at once, else the next that is free or made.

        Raises Unavailable when none can be made now.
        """
        if self._keeper is None:
            raise Unavailable("the runner is stopping")
        self._last_use = _now()
        while self._idle:
            sandbox = self._idle.pop()  # the one used last; those that stay unused are the ones to trim
            if self._containers.is_ready(sandbox):
                self._changed.set()
                return sandbox
            self._doomed.add(sandbox.id)
        future: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
        # Nothing is awaited before this: the keeper must never look in between and see nobody waiting.
        self._waiting.append(future)
        self._changed.set()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._offer(future.result())
            raise

    async def give_back(self, sandbox: Sandbox, *, reusable: bool) -> None:
        """Take a sandbox whose workload is removed; `reusable`: it had no rights over its network.

        Cancelled half-way, it is destroyed: nobody knows any more whether it is clean.
        """
        self._last_use = _now()
        try:
            reach(CrashPoint.RUNNER_SANDBOX_RETURNING)
            if await self._is_clean(sandbox, reusable=reusable):
                self._last_return = _now()
                self._offer(sandbox)
                return
            await self._discard(sandbox.id)
        except BaseException:
            self._doomed.add(sandbox.id)
            raise
        finally:
            self._changed.set()

    def doom(self, container_id: str) -> None:
        """Have a container of a sandbox removed that came to nothing."""
        self._doomed.add(container_id)
        self._changed.set()

    async def _is_clean(self, sandbox: Sandbox, *, reusable: bool) -> bool:
        if not self._size or not reusable or self._keeper is None:
            return False
        found = await self._containers.traces_in(sandbox)
        if found:
            _log.info("sandbox_not_clean", sandbox=sandbox.name, traces=found[:5])
        # The pool may have been closed meanwhile, and nothing would remove it then.
        return not found and self._keeper is not None

    async def _discard(self, container_id: str) -> None:
        """Destroy it; what the engine does not manage now, the keeper tries again."""
        self._doomed.add(container_id)
        try:
            await self._containers.destroy(container_id)
        except Exception as error:  # noqa: BLE001 - boundary of an engine call; it is tried again
            expected = isinstance(error, (KohakuRiverError, OSError))
            _log.warning("sandbox_not_removed", sandbox=container_id, error=str(error), exc_info=not expected)
        else:
            self._doomed.discard(container_id)

    def _offer(self, sandbox: Sandbox) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(sandbox)
                return
        self._idle.append(sandbox)
        self._changed.set()

    def _fail_waiting(self, error: Unavailable) -> None:
        """Whoever waits is told, rather than left to hang; trying again is the agent's decision."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(Unavailable(str(error)))

    async def _readopt(self, container_id: str) -> None:
        try:
            sandbox = await self._containers.read(container_id)
            if self._size and not await self._containers.traces_in(sandbox):
                self._idle.append(sandbox)
                return
        except (KohakuRiverError, OSError) as error:
            _log.warning("sandbox_not_readable", sandbox=container_id, error=str(error))
        await self._discard(container_id)

    async def _keep(self) -> None:
        while self._keeper is not None:
            try:
                async with asyncio.TaskGroup() as work:
                    await self._keep_on(work)
            except Exception as error:  # noqa: BLE001 - boundary: without its keeper the node runs nothing
                _log.exception("sandbox_keeper_broke")
                self._failed(f"the keeper of sandboxes broke and begins again: {error!r}")
                await asyncio.sleep(_TIDY_PAUSE_SECONDS)

    async def _keep_on(self, work: asyncio.TaskGroup) -> None:
        while self._keeper is not None:
            self._changed.clear()
            for _ in range(self.missing()):
                self._making += 1
                work.create_task(self._make_one())
            if not self._tidying and self._tidy_is_due():
                self._tidying = True
                work.create_task(self._tidy())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._quiet_seconds()):
                    await self._changed.wait()

    def missing(self) -> int:
        """How many to begin to make now."""
        wanted = sum(not future.done() for future in self._waiting)
        if not wanted and _now() >= max(self._last_use + _REFILL_SECONDS, self._make_pause.until):
            # After a fault one is made even where none is missing: only that shows that it is over.
            wanted = max(self._size - len(self._idle), 1 if self._fault else 0)
        return max(0, min(wanted, self._makers()) - self._making)

    def _makers(self) -> int:
        return _MAKERS_BESIDE_RETURNS if _now() < self._last_return + _REFILL_SECONDS else _MAKERS

    def _tidy_is_due(self) -> bool:
        now = _now()
        return (bool(self._doomed) and now >= self._tidy_after) or (
            len(self._idle) > self._size and now >= self._last_use + self._trim_seconds
        )

    def _quiet_seconds(self) -> float | None:
        """Time until something is due without a change; None: nothing is."""
        if self._waiting:
            return _REFILL_SECONDS
        due = []
        if self._making < _MAKERS and (len(self._idle) + self._making < self._size or self._fault):
            due.append(max(self._last_use + _REFILL_SECONDS, self._make_pause.until))
        if len(self._idle) > self._size:
            due.append(self._last_use + self._trim_seconds)
        if self._doomed and not self._tidying:
            due.append(self._tidy_after)
        return max(min(due) - _now(), _SHORTEST_REST_SECONDS) if due else None

    async def _make_one(self) -> None:
        try:
            sandbox = await self.making_time.give(self._containers.make(self._doomed.add))
        except KohakuRiverError as error:
            self._failed(f"sandboxes cannot be made: {error}")
        except Exception as error:  # noqa: BLE001 - boundary of one try; the keeper must outlive it
            _log.exception("sandbox_make_broke")
            self._failed(f"sandboxes cannot be made: {error!r}")
        else:
            self._fault, self._make_pause = None, Pause()
            self._offer(sandbox)
        finally:
            self._making -= 1
            self._changed.set()

    def _failed(self, sentence: str) -> None:
        self._fault = sentence
        self._make_pause.grow(_now())
        _log.warning("sandbox_not_made", error=sentence)
        self._fail_waiting(Unavailable(sentence))

    async def _tidy(self) -> None:
        try:
            for container_id in tuple(self._doomed):
                await self._discard(container_id)
            while len(self._idle) > self._size and _now() >= self._last_use + self._trim_seconds:
                await self._discard(self._idle.popleft().id)
        finally:
            self._tidying = False
            self._tidy_after = _now() + _TIDY_PAUSE_SECONDS
            self._changed.set()
