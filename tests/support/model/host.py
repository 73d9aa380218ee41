"""The real control room and dispatcher over a database in memory, in virtual time; it can die and come back.

What is committed outlives it; what it held in memory does not.
"""

import asyncio
import functools
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from kohakuriver.host.control import RunnerControl
from kohakuriver.host.control.clock import Clock
from kohakuriver.host.control.cluster_control import ClusterControl, ControlSettings, open_control
from kohakuriver.host.dispatch.dispatcher import Dispatcher
from kohakuriver.host.store.disk_space import DiskSpace, StoreSize
from kohakuriver.host.store.migrate import bring_to_newest
from kohakuriver.host.store.sqlite.dialect import write_transaction
from kohakuriver.models.errors import Unavailable
from kohakuriver.wire.messages import (
    EnrolRequest,
    Heartbeat,
    Order,
    Registration,
    decode,
    encode,
)
from kohakuriver.wire.trust.identity import Identity
from support.host.failing_store import FailingStore
from support.model.lossy_network import LossyNetwork
from support.model.virtual_time import VirtualLoop
from support.runner.agent_world import defect_of

CLUSTER_ID = "model-cluster"
BEAT_SECONDS = 10.0
TIMEOUT_BEATS = 3
CHECK_SECONDS = 10.0
SILENCE_SECONDS = BEAT_SECONDS * TIMEOUT_BEATS + CHECK_SECONDS
_EPOCH = datetime(2026, 11, 1, tzinfo=UTC)
_T = TypeVar("_T")


class VirtualClock(Clock):
    """The loop's time; `offset_seconds` is how far the machine's own clock is off."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.offset_seconds = 0.0

    def now(self) -> datetime:
        return _EPOCH + timedelta(seconds=self._loop.time() + self.offset_seconds)

    def monotonic(self) -> float:
        return self._loop.time()


@functools.cache
def _empty_database() -> bytes:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    bring_to_newest(_engine_over(connection), write_transaction)
    return connection.serialize()


def _engine_over(connection: sqlite3.Connection) -> Engine:
    return create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)


class MemoryStore:
    """A `Store` without threads, and without a disk that could be full."""

    location = "/model/host.db"
    write_fault = None
    is_using_reserve = False

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection.deserialize(_empty_database())
        self._engine = _engine_over(self._connection)

    async def write(self, change: Callable[[Connection], _T], *, new_work: bool = False) -> _T:
        try:
            with write_transaction(self._engine) as connection:
                return change(connection)
        except DBAPIError as error:
            raise Unavailable(f"the model's database cannot be written: {error.orig}") from error

    async def read(self, query: Callable[[Connection], _T]) -> _T:
        return self.look(query)

    def look(self, query: Callable[[Connection], _T]) -> _T:
        with self._engine.connect() as connection:
            return query(connection)

    async def room(self) -> DiskSpace:
        return DiskSpace(1 << 40, 1 << 40)

    async def keep_reserve(self, size_bytes: int) -> None:
        """There is nothing that could be set aside."""

    def size(self) -> StoreSize:
        return StoreSize(len(self._connection.serialize()), 0, 1 << 40)

    def close(self) -> None:
        self._engine.dispose()
        self._connection.close()


class _NetworkDispatcher(Dispatcher):
    """The real one, whose requests go over the model's network."""

    def __init__(self, runners: RunnerControl, network: LossyNetwork) -> None:
        super().__init__(runners)
        self._network = network

    async def _request(self, node: str, method: str, path: str, body: bytes = b"") -> Any:
        assert (method, path) == ("POST", "/api/orders")
        answers = await self._network.ask((node, False), decode(body, list[Order]))
        return 200, encode(answers), {}


class ModelHost:
    """Start it with `start`. `control` is the control room of its present life, None while it is dead."""

    def __init__(self, loop: VirtualLoop, network: LossyNetwork) -> None:
        self.rows = MemoryStore()
        self.store = FailingStore(self.rows)
        self.clock = VirtualClock(loop)
        self.control: ClusterControl | None = None
        self.defect: BaseException | None = None
        self._loop = loop
        self._network = network
        self._identity = Identity.generate()
        self._jobs: list[Any] = []

    def start(self) -> None:
        settings = ControlSettings("/shared", "base", TIMEOUT_BEATS, BEAT_SECONDS, CHECK_SECONDS)
        opening = open_control(self.store, CLUSTER_ID, self._identity, settings, self.clock)
        control = self.control = self._loop.do(opening).result()
        dispatcher = _NetworkDispatcher(control.runners, self._network)
        control.runners.wake_dispatch = dispatcher.wake
        self._jobs = [self._loop.create_task(control.run()), self._loop.create_task(dispatcher.run())]
        for job in self._jobs:
            job.add_done_callback(self._dead)
        self._loop.settle()

    def kill(self) -> None:
        """kill -9; a commit that is under way is through or not, as the store's fault said."""
        self._dead(None)
        self._loop.settle()

    def take_in(self, name: str) -> None:
        """Enrol and approve a node."""
        assert self.control is not None
        request = EnrolRequest(hostname=name, public_key=Identity.generate().public_key)
        self._loop.do(self.control.runners.enrol(request)).result()
        self._loop.do(self.control.nodes.approve(name, None, "admin")).result()

    async def receive(self, node: str, message: object) -> object:
        """What the API's endpoints for runners do."""
        if self.control is None:
            raise Unavailable("connection refused")
        match message:
            case Registration():
                return await self.control.runners.register(node, message, "10.0.0.1")
            case Heartbeat():
                return await self.control.runners.heartbeat(node, message)
            case list():
                return await self.control.runners.apply_reports(node, message)
        raise AssertionError(f"no runner sends {message!r}")

    def _dead(self, ended: "asyncio.Task[None] | None") -> None:
        self.control = None
        self.defect = self.defect or defect_of(ended)
        for job in self._jobs:
            job.cancel()
