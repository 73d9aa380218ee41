"""Which sandbox serves whom: a few ready ones, more made while workloads wait, clean ones used again.

Rules: one workload at a time; what is given back goes to whoever waits longest, else stays idle; idle ones
beyond the pool size go after a quiet time; a sandbox with a trace of its workload is destroyed. The keeper is
the only maker, and it holds back while the node is busy taking and giving.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable

import structlog

from kohakuriver.models.errors import EngineFault, KohakuRiverError, Unavailable
from kohakuriver.runner.engines.docker.sandbox_containers import Sandbox, SandboxContainers

_MAKERS = 3
# After a take, a sandbox in use is likely to come back before a new one would be ready.
_REFILL_SECONDS = 0.4
_FIRST_BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 30.0
# For an engine that hangs; what it makes afterwards the next runner finds and removes.
_STOP_SECONDS = 10.0
# A maker that hangs would hold one of the few places for ever.
_MAKE_SECONDS = 60.0

_log = structlog.get_logger()


class SandboxPool:
    """`open`, then any number of `take` and `give_back`, then `close`."""

    def __init__(self, containers: SandboxContainers, size: int, idle_trim_seconds: float) -> None:
        self._containers = containers
        self._size = size
        self._trim_seconds = idle_trim_seconds
        self._idle: deque[Sandbox] = deque()
        self._waiting: deque[asyncio.Future[Sandbox]] = deque()
        self._doomed: set[str] = set()
        self._making = 0
        self._changed = asyncio.Event()
        self._last_use = 0.0
        self._backoff = 0.0
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
        for future in self._waiting:
            if not future.done():
                future.set_exception(Unavailable("the runner is stopping"))
        self._waiting.clear()
        while self._idle:
            await self._discard(self._idle.popleft().id)

    async def stop_keeping(self) -> None:
        """Make no more, and let what is being made be finished: cut short, the engine would still make it."""
        if self._keeper is None:
            return
        keeper, self._keeper = self._keeper, None
        self._changed.set()
        await asyncio.wait([keeper], timeout=_STOP_SECONDS)
        keeper.cancel()
        await asyncio.wait([keeper])

    def faults(self) -> list[str]:
        return [self._fault] if self._fault else []

    async def take(self) -> Sandbox:
        """Return a sandbox for one workload: a ready one at once, else the next that is free or made."""
        self._last_use = time.monotonic()
        self._changed.set()
        while self._idle:
            sandbox = self._idle.pop()  # the one used last; those that stay unused are the ones to trim
            if self._containers.is_ready(sandbox):
                return sandbox
            await self._discard(sandbox.id)
        future: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._offer(future.result())
            raise

    async def give_back(self, sandbox: Sandbox, *, reusable: bool) -> None:
        """Take a sandbox whose workload is removed; `reusable`: it had no rights over its network."""
        self._last_use = time.monotonic()
        if self._size and reusable and self._keeper is not None:
            found = await self._containers.traces_in(sandbox)
            if not found:
                self._offer(sandbox)
                return
            _log.info("sandbox_not_clean", sandbox=sandbox.name, traces=found[:5])
        await self._discard(sandbox.id)
        self._changed.set()

    async def _discard(self, container_id: str) -> None:
        """Destroy it; what the engine does not manage now, the keeper tries again."""
        try:
            await self._containers.destroy(container_id)
        except (KohakuRiverError, OSError) as error:
            _log.warning("sandbox_not_removed", sandbox=container_id, error=str(error))
            self._doomed.add(container_id)
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
        async with asyncio.TaskGroup() as makers:
            while self._keeper is not None:
                self._changed.clear()
                for _ in range(self._missing()):
                    self._making += 1
                    makers.create_task(self._make_one())
                await self._tidy()
                try:
                    async with asyncio.timeout(self._quiet_seconds()):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def _missing(self) -> int:
        """How many to begin to make now."""
        waiting = sum(not future.done() for future in self._waiting)
        wanted = waiting
        if not waiting and time.monotonic() - self._last_use >= max(_REFILL_SECONDS, self._backoff):
            wanted = self._size - len(self._idle)
        return max(0, min(wanted, _MAKERS) - self._making)

    def _quiet_seconds(self) -> float | None:
        """Time until something is due without a change; None: nothing is."""
        since = time.monotonic() - self._last_use
        if len(self._idle) + self._making < self._size:
            return max(_REFILL_SECONDS, self._backoff - since, 0.01)
        if len(self._idle) > self._size:
            return max(self._trim_seconds - since, 0.05)
        return _FIRST_BACKOFF_SECONDS if self._doomed else None

    async def _make_one(self) -> None:
        try:
            sandbox = await self._made()
        except KohakuRiverError as error:
            self._fault = f"sandboxes cannot be made: {error}"
            self._last_use = time.monotonic()
            self._backoff = min(max(self._backoff * 2, _FIRST_BACKOFF_SECONDS), _LONGEST_BACKOFF_SECONDS)
            _log.warning("sandbox_not_made", error=str(error))
            # Whoever waits is told, rather than left to hang; trying again is the agent's decision.
            while self._waiting:
                future = self._waiting.popleft()
                if not future.done():
                    future.set_exception(type(error)(str(error)))
        else:
            self._fault, self._backoff = None, 0.0
            self._offer(sandbox)
        finally:
            self._making -= 1
            self._changed.set()

    async def _made(self) -> Sandbox:
        """Make one; whatever goes wrong leaves as one of our errors, for the keeper must outlive it."""
        try:
            async with asyncio.timeout(_MAKE_SECONDS):
                return await self._containers.make()
        except KohakuRiverError:
            raise
        except TimeoutError as error:
            raise Unavailable(f"the engine did not make a sandbox within {_MAKE_SECONDS:.0f} s") from error
        except Exception as error:
            _log.exception("sandbox_make_broke")
            raise EngineFault(f"a sandbox could not be made: {error}") from error

    async def _tidy(self) -> None:
        for container_id in tuple(self._doomed):
            await self._discard(container_id)
        while len(self._idle) > self._size and time.monotonic() - self._last_use >= self._trim_seconds:
            await self._discard(self._idle.popleft().id)
