"""Removes what has been kept for long enough: output, records and histories of ended tasks.

Rules: a little at a time, with pauses, in a thread and in transactions of its own, so that nobody waits for
it; nothing of a task that has not ended for good; output goes before the record that leads to it; what cannot
be removed now is tried again with the next sweep. Nothing here follows a link.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import structlog

from kohakuriver.host.control.clock import Clock
from kohakuriver.host.retention.nodes import Moments, NodeParts, NodeSweep
from kohakuriver.host.retention.outputs import OutputFolders
from kohakuriver.host.retention.records import ON_HOST, Leftovers, RetentionReport
from kohakuriver.host.retention.rules import RetentionRules, SteadyNow
from kohakuriver.host.store import ended_tasks
from kohakuriver.host.store.rows import to_micros
from kohakuriver.host.store.store import Store
from kohakuriver.models.enums import LeftoverKind
from kohakuriver.models.errors import KohakuRiverError
from kohakuriver.models.ids import highest_id_at

log = structlog.get_logger()

FIRST_SWEEP_SECONDS = 600.0
SWEEP_SECONDS = 3600.0
_TASKS_AT_ONCE = 100
_EVENTS_AT_ONCE = 500
_PAUSE_SECONDS = 0.05
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RetentionParts:
    """`outputs` gives the folders of output while shared storage is there and this cluster's, else None.

    `on_removal` hears of records that were removed from the store. `nodes` None: there are none to be asked.
    """

    store: Store
    rules: RetentionRules
    outputs: Callable[[], OutputFolders | None]
    clock: Clock
    on_removal: Callable[[], None] = lambda: None
    nodes: NodeParts | None = None


@dataclass(slots=True)
class _Walk:
    """One walk over everything; with `removes` False it only counts."""

    removes: bool
    now: datetime
    rules: RetentionRules
    counts: Counter[LeftoverKind] = field(default_factory=Counter)
    sizes: Counter[LeftoverKind] = field(default_factory=Counter)
    faults: list[tuple[str, str]] = field(default_factory=list)
    of_nodes: list[Leftovers] = field(default_factory=list)

    def moment(self, kind: LeftoverKind, *, on_nodes: bool = False) -> int | None:
        """What ended before it has been kept for long enough; None: it is kept for ever."""
        days = self.rules.days_on_nodes(kind) if on_nodes else self.rules.days(kind)
        return to_micros(self.now - timedelta(days=days)) if days else None

    @property
    def output_goes_first(self) -> bool:
        """Whether a look has counted the output of all tasks whose records would go."""
        return not self.removes and 0 < self.rules.output <= self.rules.tasks

    def report(self) -> RetentionReport:
        items = [
            Leftovers(
                kind,
                ON_HOST,
                self.counts[kind],
                self.sizes[kind] if kind is LeftoverKind.OUTPUT else None,
                self.rules.days(kind),
            )
            for kind in (LeftoverKind.OUTPUT, LeftoverKind.TASKS, LeftoverKind.EVENTS)
        ]
        return RetentionReport(items + self.of_nodes, self.faults)


class Retention:
    """`removed` and `removed_bytes` count by kind what was removed since the start. Close it at the end."""

    def __init__(self, parts: RetentionParts) -> None:
        self._parts = parts
        self._now = SteadyNow(parts.clock)
        # A thread of its own: storage that hangs must not take those of others.
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="retention")
        self._one_at_a_time = asyncio.Lock()
        self.removed: Counter[LeftoverKind] = Counter()
        self.removed_bytes: Counter[LeftoverKind] = Counter()

    async def run(self) -> None:
        """Sweep now and then, until cancelled."""
        await asyncio.sleep(FIRST_SWEEP_SECONDS)
        while True:
            try:
                await self.sweep()
            except Exception:
                log.exception("retention_failed")
            await asyncio.sleep(SWEEP_SECONDS)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def look(self) -> RetentionReport:
        """What a sweep would remove now."""
        return await self._walk(removes=False)

    async def sweep(self) -> RetentionReport:
        """Remove what has been kept for long enough, and say what it was; waits for a sweep under way."""
        async with self._one_at_a_time:
            report = await self._walk(removes=True)
        for item in report.items:
            self.removed[item.kind] += item.count
            self.removed_bytes[item.kind] += item.size_bytes or 0
            if item.count:
                log.info(
                    "leftovers_removed",
                    kind=item.kind.value,
                    place=item.place,
                    count=item.count,
                    size_bytes=item.size_bytes,
                    kept_days=item.kept_days,
                )
        for place, sentence in report.faults:
            log.warning("leftovers_not_removed", place=place, reason=sentence)
        return report

    async def _walk(self, *, removes: bool) -> RetentionReport:
        walk = _Walk(removes, self._now(), self._parts.rules)
        for work in (self._nodes, self._output, self._tasks, self._events):
            try:
                await work(walk)
            except KohakuRiverError as error:
                walk.faults.append((ON_HOST, str(error)))
        return walk.report()

    async def _nodes(self, walk: "_Walk") -> None:
        """Before the records go that say what of it may go."""
        if self._parts.nodes is None:
            return
        snapshots, output = (
            walk.moment(kind, on_nodes=True) for kind in (LeftoverKind.SNAPSHOTS, LeftoverKind.OUTPUT)
        )
        moments = Moments(snapshots, output)
        rules, store = self._parts.rules, self._parts.store
        sweep = NodeSweep(self._parts.nodes, store, rules, moments, removes=walk.removes)
        await sweep.run()
        walk.of_nodes += sweep.items
        walk.faults += sweep.faults

    async def _output(self, walk: "_Walk") -> None:
        """Look at each folder that there is: what was removed earlier costs nothing."""
        before = walk.moment(LeftoverKind.OUTPUT)
        if before is None:
            return
        folders = await self._in_thread(self._parts.outputs)
        if folders is None:
            walk.faults.append((ON_HOST, "shared storage is not there, so no output was looked at"))
            return
        batches = folders.batches(highest_id_at(before // 1000), _TASKS_AT_ONCE)
        try:
            while some := await self._in_thread(_next_of, batches):
                ended = partial(ended_tasks.those_ended, task_ids=some, before=before)
                for task_id in sorted(await self._parts.store.read(ended)):
                    await self._take_output(walk, folders, task_id)
                await asyncio.sleep(_PAUSE_SECONDS)
        except OSError as error:
            walk.faults.append((ON_HOST, f"output cannot be looked at: {error.strerror or error}"))

    async def _take_output(self, walk: "_Walk", folders: OutputFolders, task_id: int) -> bool:
        """Delete (or count) what there is; False: it stays, and the report says why."""
        try:
            size_bytes = await self._in_thread(folders.delete if walk.removes else folders.size_of, task_id)
        except KohakuRiverError as error:
            walk.faults.append((ON_HOST, str(error)))
            return False
        if size_bytes is not None:
            walk.counts[LeftoverKind.OUTPUT] += 1
            walk.sizes[LeftoverKind.OUTPUT] += size_bytes
        return True

    async def _tasks(self, walk: "_Walk") -> None:
        before = walk.moment(LeftoverKind.TASKS)
        if before is None:
            return
        folders = await self._in_thread(self._parts.outputs)
        last = 0
        ask = partial(ended_tasks.ended_tasks, before=before, limit=_TASKS_AT_ONCE)
        while found := await self._parts.store.read(partial(ask, after_id=last)):
            last = found[-1].id
            ready = [task.id for task in found if await self._is_without_output(walk, folders, task)]
            if walk.removes:
                delete = partial(ended_tasks.delete_ended, task_ids=ready, before=before)
                walk.counts[LeftoverKind.TASKS] += await self._parts.store.write(delete, new_work=True)
                self._parts.on_removal()
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                walk.counts[LeftoverKind.TASKS] += len(ready)

    async def _is_without_output(
        self, walk: "_Walk", folders: OutputFolders | None, task: ended_tasks.EndedTask
    ) -> bool:
        """See that nothing is left that only the record leads to; False: it stays, and so does the record."""
        if not task.has_output:
            return True
        if folders is None:
            return False
        return walk.output_goes_first or await self._take_output(walk, folders, task.id)

    async def _events(self, walk: "_Walk") -> None:
        before = walk.moment(LeftoverKind.EVENTS)
        last: int | None = 0
        while before is not None and last is not None:
            ask = partial(ended_tasks.old_events, before=before, after=last, limit=_EVENTS_AT_ONCE)
            found = await self._parts.store.read(ask)
            last = found.seen_up_to
            if walk.removes and found.ids:
                delete = partial(ended_tasks.delete_events, ids=found.ids)
                walk.counts[LeftoverKind.EVENTS] += await self._parts.store.write(delete, new_work=True)
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                walk.counts[LeftoverKind.EVENTS] += len(found.ids)

    async def _in_thread(self, work: Callable[..., _T], *args: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)


def _next_of(batches: Iterator[list[int]]) -> list[int] | None:
    return next(batches, None)
