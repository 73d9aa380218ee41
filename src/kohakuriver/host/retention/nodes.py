"""What nodes keep of work that has ended: asked of each that is online, and removed by its runner.

A node names what it has; what of that may go is told by the store. What the store does not know stays:
another cluster on the same engine may have it, or a restored host may have lost its record.
"""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from kohakuriver.host.retention.records import Leftovers
from kohakuriver.host.retention.rules import RetentionRules
from kohakuriver.host.store import ended_tasks
from kohakuriver.host.store.store import Store
from kohakuriver.models.enums import LeftoverKind
from kohakuriver.models.errors import KohakuRiverError
from kohakuriver.models.ids import parse_task_id
from kohakuriver.wire.leftovers import MOST_IDS, NodeLeftovers, Removal, RemovalRequest
from kohakuriver.wire.messages import decode, encode

_IDS_AT_ONCE = 500
_ASK_SECONDS = 120.0
_WORK_SECONDS = 1800.0
NODE_KINDS = (LeftoverKind.OUTPUT, LeftoverKind.SNAPSHOTS, LeftoverKind.IMAGES, LeftoverKind.LOCAL_TEMP)


class CallRunner(Protocol):
    """A call to the runner of a node (`host.dispatch.runners`)."""

    async def __call__(
        self, node: str, method: str, target: str, body: bytes = b"", seconds: float = 60.0
    ) -> bytes: ...


@dataclass(frozen=True, slots=True)
class NodeParts:
    """`online`: nodes that can be asked. `needed_images`: what work that can still begin asks for, registry
    images and environments alike. `environments`: all that there are, None where that cannot be told."""

    online: Callable[[], list[str]]
    call: CallRunner
    needed_images: Callable[[], Awaitable[Collection[str]]]
    environments: Callable[[], Awaitable[list[str] | None]]


@dataclass(frozen=True, slots=True)
class Moments:
    """Microseconds since 1970 before which VPSs and tasks must have ended; None: theirs is kept."""

    snapshots: int | None
    output: int | None


@dataclass(frozen=True, slots=True)
class _Needs:
    images: list[str]
    environments: list[str] | None


class NodeSweep:
    """One sweep (or look) over all nodes. Shared storage is taken up with the first node that names it."""

    def __init__(
        self, parts: NodeParts, store: Store, rules: RetentionRules, moments: Moments, *, removes: bool
    ) -> None:
        self._parts = parts
        self._store = store
        self._rules = rules
        self._moments = moments
        self._removes = removes
        self._exported: set[int] = set()
        self.items: list[Leftovers] = []
        self.faults: list[tuple[str, str]] = []

    async def run(self) -> None:
        """One node after the other; one that cannot be asked costs its own part."""
        needs = _Needs(sorted(await self._parts.needed_images()), await self._parts.environments())
        for node in self._parts.online():
            try:
                await self._sweep(node, needs)
            except KohakuRiverError as error:
                self.faults.append((node, str(error)))

    async def _sweep(self, node: str, needs: "_Needs") -> None:
        told = decode(await self._parts.call(node, "GET", "/api/leftovers", b"", _ASK_SECONDS), NodeLeftovers)
        exported = {parse_task_id(text) for text in told.exported} - self._exported
        vps_ids = exported | {parse_task_id(text) for text in told.sessions}
        gone = await self._ended(vps_ids, self._moments.snapshots)
        self._exported |= exported
        outputs = await self._ended({parse_task_id(text) for text in told.outputs}, self._moments.output)
        request = RemovalRequest(
            dry_run=not self._removes,
            sessions=_texts(gone),
            outputs=_texts(outputs),
            images_days=self._rules.images,
            local_temp_days=self._rules.local_temp,
            needed_images=needs.images,
            environments=needs.environments,
        )
        body = encode(request)
        answer = await self._parts.call(node, "POST", "/api/leftovers/remove", body, _WORK_SECONDS)
        self._take(node, decode(answer, Removal))

    async def _ended(self, task_ids: Collection[int], before: int | None) -> set[int]:
        """Those that the store knows to have ended for good before the moment."""
        ended: set[int] = set()
        listed = sorted(task_ids) if before is not None else []
        for begin in range(0, len(listed), _IDS_AT_ONCE):
            some = listed[begin : begin + _IDS_AT_ONCE]
            ask = partial(ended_tasks.those_ended, task_ids=some, before=before or 0)
            ended |= await self._store.read(ask)
        return ended

    def _take(self, node: str, removal: Removal) -> None:
        told = {found.kind: found for found in removal.removed}
        for kind in NODE_KINDS:
            found = told.get(kind.value)
            count, size_bytes = (found.count, found.size_bytes) if found else (0, 0)
            self.items.append(Leftovers(kind, node, count, size_bytes, self._rules.days(kind)))
        self.faults += [(node, sentence) for sentence in removal.faults]


def _texts(ids: Collection[int]) -> list[str | int]:
    return [str(task_id) for task_id in sorted(ids)[:MOST_IDS]]
