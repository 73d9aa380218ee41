"""The host's control room over a real store, without network: for tests of its rules."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from kohakuriver.host.control.cluster_control import ClusterControl, ControlSettings, open_control
from kohakuriver.host.control.turn import Turn
from kohakuriver.host.store.records import UserRow
from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.host.store.store import Store
from kohakuriver.models.enums import Role, TaskState
from kohakuriver.models.ids import TaskId
from kohakuriver.models.spec.targets import Target
from kohakuriver.models.tasks import TaskSpec
from kohakuriver.wire.messages import (
    AttemptState,
    EnrolRequest,
    Heartbeat,
    OrderAnswer,
    Registration,
    RegistrationAnswer,
    TaskReport,
)
from kohakuriver.wire.trust.identity import Identity
from support.host.failing_store import FailingStore

CLUSTER_ID = "test-cluster"


@dataclass
class Room:
    """A running control room and what it stands on."""

    control: ClusterControl
    store: FailingStore
    beats: int = 0

    async def join(self, name: str = "n1", cores: int = 2, **machine: Any) -> None:
        """Enrol, approve and register a node, and let it beat once. `machine`: more of its registration."""
        key = Identity.generate().public_key
        await self.control.runners.enrol(EnrolRequest(hostname=name, public_key=key))
        await self.control.nodes.approve(name, None, "admin")
        await self.register(name, cores, **machine)
        await self.beat(name)

    async def register(
        self, name: str = "n1", cores: int = 2, boot_id: str = "boot-1", **machine: Any
    ) -> RegistrationAnswer:
        registration = Registration(
            hostname=name,
            url="http://127.0.0.1:8001",
            total_cores=cores,
            total_ram_bytes=1 << 30,
            boot_id=boot_id,
            heartbeat_interval_seconds=1,
            **{"shared_cluster_id": CLUSTER_ID} | machine,
        )
        return await self.control.runners.register(name, registration, "127.0.0.1")

    async def beat(
        self,
        name: str = "n1",
        attempts: list[AttemptState] | None = None,
        orders_seen: int = 0,
        *,
        complete: bool = True,
        notices: list[str] | None = None,
        **more: Any,
    ) -> list[AttemptState]:
        """Send a heartbeat; returns what the host wants ended. `more`: other fields of it."""
        self.beats += 1
        beat = Heartbeat(
            revision=self.beats,
            boot_id="boot-1",
            attempts=attempts or [],
            orders_seen=orders_seen,
            complete=complete,
            notices=notices or [],
            **more,
        )
        answer = await self.control.runners.heartbeat(name, beat)
        assert answer.known
        return answer.end_attempts

    async def add_user(self, name: str, role: Role, *, active: bool = True) -> UserRow:
        """Make an account, or change it."""
        user = UserRow(name, role, active, datetime.now(UTC))
        return await self.control.loop.call(partial(Turn.put_user, user=user))

    async def submit(self, node: str | None = "n1", **fields: Any) -> TaskId:
        spec = TaskSpec("true", target=Target(node) if node else None, **fields)
        result = await self.control.tasks.submit("alice", [spec], needs_approval=False)
        return result.tasks[0].id

    async def accept_orders(self, name: str = "n1") -> list[int]:
        """Acknowledge what waits for a node, as its runner would; returns the task ids, in order."""
        orders = self.control.runners.orders_for(name, 1000)
        await self.control.runners.orders_answered(
            name, [OrderAnswer(order_id=o.order_id, accepted=True) for o in orders]
        )
        return [int(order.task_id) for order in orders]

    async def report(
        self,
        task_id: int,
        status: TaskState,
        revision: int,
        attempt: int = 1,
        node: str = "n1",
        **more: Any,
    ) -> None:
        report = TaskReport(
            task_id=str(task_id),
            status=status,
            attempt=attempt,
            revision=revision,
            **more,
        )
        await self.control.runners.apply_reports(node, [report])

    async def begin(self, **fields: Any) -> TaskId:
        """Submit a task and have n1 say that it runs."""
        task_id = await self.submit(**fields)
        await self.accept_orders()
        await self.report(task_id, TaskState.RUNNING, 1)
        return task_id

    async def state(self, task_id: TaskId) -> TaskState:
        return (await self.control.tasks.find(task_id)).state


Scenario = Callable[[Room], Coroutine[Any, Any, None]]


def play(folder: Path, scenario: Scenario, check_seconds: float = 10) -> None:
    """Run a scenario in a control room over a new store."""

    async def run() -> None:
        async with control_room(folder, check_seconds) as room:
            await scenario(room)

    asyncio.run(run())


async def control_over(
    store: Store,
    check_seconds: float = 10,
    identity: Identity | None = None,
    must_match: Mapping[str, object] | None = None,
) -> ClusterControl:
    """A control room that reads the store now, and does not run yet."""
    settings = ControlSettings("/shared", "base", 2, 1, check_seconds, must_match=must_match or {})
    return await open_control(store, CLUSTER_ID, identity or Identity.generate(), settings)


@contextlib.asynccontextmanager
async def control_room(
    folder: Path,
    check_seconds: float = 10,
    identity: Identity | None = None,
    must_match: Mapping[str, object] | None = None,
) -> AsyncIterator[Room]:
    """Open the store in the folder (made if missing) and run a control room over it."""
    store = FailingStore(open_store(folder / "host.db"))
    control = await control_over(store, check_seconds, identity, must_match)
    serving = asyncio.create_task(control.run())
    try:
        yield Room(control, store)
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        store.close()
