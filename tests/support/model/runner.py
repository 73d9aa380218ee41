"""A runner in virtual time: the real agent, its book and its presence at the host, over a journal in memory.

It can die at any step. The machine with its workloads, and what was journalled, outlive it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from kohakuriver.models.abilities import Ability
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.resources import Gpu
from kohakuriver.runner.agent.agent import Agent
from kohakuriver.runner.agent.agent_parts import AgentParts
from kohakuriver.runner.agent.book import Book
from kohakuriver.runner.agent.durable_book import DurableBook
from kohakuriver.runner.agent.journal import JournalFault
from kohakuriver.runner.agent.order_spec import NodeFacts
from kohakuriver.runner.agent.records import Record, decode_record, encode_record
from kohakuriver.runner.engines.contract.spec import DOCKER
from kohakuriver.runner.link.presence import Presence, PresenceParts
from kohakuriver.runner.link.self_description import Condition
from kohakuriver.wire.messages import (
    SESSIONS,
    AttemptState,
    GpuInfo,
    Heartbeat,
    HeartbeatAnswer,
    Order,
    OrderAnswer,
    Registration,
    RegistrationAnswer,
    TaskReport,
)
from support.model.host import BEAT_SECONDS, CLUSTER_ID
from support.model.lossy_network import LossyNetwork
from support.model.virtual_time import VirtualLoop
from support.runner.agent_world import defect_of, settings_in
from support.runner.machine_engine import Dead, Death, Key, Machine, MachineEngine

CORES = 2
MEMORY_BYTES = 4 << 30
GPUS = (0, 1)
M = TypeVar("M", bound=Machine)


@dataclass
class Disk:
    """Where a journal lies. `full`: that many writes fail, of which each may have left its data or not."""

    frames: list[bytes] = field(default_factory=list)
    full: int = 0
    keeps_what_failed: bool = False


class MemoryJournal:
    """The face and the rules of the real journal; its process may die before and after each write."""

    def __init__(self, disk: Disk, death: Death, snapshot: Callable[[], Sequence[Record]]) -> None:
        self.fault: str | None = None
        self._disk = disk
        self._death = death
        self._snapshot = snapshot
        self._trusted = False

    def load(self) -> list[Record]:
        return [decode_record(data) for data in self._disk.frames]

    async def append(self, *records: Record) -> None:
        if self._trusted:
            await self._write(self._disk.frames + [encode_record(record) for record in records])
        else:
            await self.rewrite()

    async def rewrite(self) -> None:
        await self._write([encode_record(record) for record in self._snapshot()])

    def close(self) -> None: ...

    async def _write(self, frames: list[bytes]) -> None:
        self._death.step("write")
        failed = self._disk.full > 0
        if not failed or self._disk.keeps_what_failed:
            self._disk.frames = frames
        self._disk.full -= failed
        self._trusted, self.fault = not failed, "the disk is full" if failed else None
        # The thread that writes gives others their turn.
        await asyncio.sleep(0)
        self._death.step("written")
        if failed:
            raise JournalFault("the disk is full")


class MemoryBook(DurableBook):
    """A durable book over a journal in memory."""

    def __init__(self, disk: Disk, death: Death) -> None:
        self.book = Book()
        self._journal = MemoryJournal(disk, death, self.book.records)  # type: ignore[assignment]
        for record in self._journal.load():
            self.book.apply(record)


class _Client:
    """The host as a process sees it; a dead process sends nothing."""

    def __init__(self, name: str, network: LossyNetwork, death: Death) -> None:
        self._name = name
        self._network = network
        self._death = death

    async def _ask(self, message: object) -> Any:
        if self._death.happened.is_set():
            raise Dead("send")
        return await self._network.ask((self._name, True), message)

    async def register(self, registration: Registration) -> RegistrationAnswer:
        answer: RegistrationAnswer = await self._ask(registration)
        return answer

    async def heartbeat(self, beat: Heartbeat) -> HeartbeatAnswer:
        answer: HeartbeatAnswer = await self._ask(beat)
        return answer

    async def send_reports(self, reports: list[TaskReport]) -> int:
        committed: int = await self._ask(list(reports))
        return committed


class _Enrolled:
    """Enrolment as it stands after the first contact."""

    pin = CLUSTER_ID
    fault = None

    async def run(self) -> None:
        raise AssertionError("a host never forgets an approved node here")

    async def confirm(self, cluster_id: str) -> None:
        assert cluster_id == CLUSTER_ID


class _Description:
    """What a node says about itself, without a monitor."""

    def __init__(self, name: str, boot_id: str) -> None:
        self._name = name
        self._boot_id = boot_id
        self._session = ""
        self._revision = 0
        self._lacks_registered: Mapping[Ability, str] = {}

    async def look(self) -> None: ...

    async def look_at_marker(self) -> None: ...

    def use_session(self, session: str) -> None:
        self._session = session

    def is_outdated(self, engines_lack: Mapping[Ability, str]) -> bool:
        return engines_lack != self._lacks_registered

    def registration(self, engines_lack: Mapping[Ability, str]) -> Registration:
        self._lacks_registered = engines_lack
        return Registration(
            hostname=self._name,
            url="http://10.0.0.1:8001",
            total_cores=CORES,
            total_ram_bytes=MEMORY_BYTES,
            gpu_info=[GpuInfo(gpu_id=i, uuid=f"G{i}", name="G", memory_total_bytes=1) for i in GPUS],
            heartbeat_interval_seconds=BEAT_SECONDS,
            shared_cluster_id=CLUSTER_ID,
            boot_id=self._boot_id,
            session=self._session,
            capabilities=["command", SESSIONS],
            abilities=[ability.value for ability in Ability if ability not in engines_lack],
            lacks={ability.value: reason for ability, reason in engines_lack.items()},
        )

    def heartbeat(
        self, attempts: list[AttemptState], orders_seen: int, condition: Condition, *, complete: bool
    ) -> Heartbeat:
        self._revision += 1
        return Heartbeat(
            attempts=attempts,
            complete=complete,
            orders_seen=orders_seen,
            revision=self._revision,
            boot_id=self._boot_id,
            session=self._session,
            faults=list(condition.faults),
            notices=list(condition.notices),
        )

    def heartbeat_arrived(self, beat: Heartbeat) -> None: ...


class ModelRunner(Generic[M]):
    """One node. `vanished`: attempts whose workload a reboot took away; `boots` counts its runner's lives,
    `defect` is what ended one that was not to end."""

    def __init__(self, name: str, loop: VirtualLoop, network: LossyNetwork, machine: M) -> None:
        self.name = name
        self.machine = machine
        self.disk = Disk()
        self.vanished: set[Key] = set()
        self.boots = 0
        self.defect: BaseException | None = None
        self.agent: Agent | None = None
        self.book: MemoryBook | None = None
        self._loop = loop
        self._network = network
        self._death = Death()
        self._jobs: list[asyncio.Task[None]] = []

    def start(self, dies_at: int | None = None) -> None:
        """Begin a life of its process, which ends at step `dies_at` of engine and journal."""
        self.boots += 1
        death = self._death = Death(dies_at)
        client = _Client(self.name, self._network, death)
        book = self.book = MemoryBook(self.disk, death)
        engine = MachineEngine(self.machine, death)

        async def opened() -> MachineEngine:
            return engine

        facts = NodeFacts(
            CORES, MEMORY_BYTES, (), tuple(Gpu(i, f"G{i}", "G", 1) for i in GPUS), shared_storage=True
        )
        parts = AgentParts({DOCKER: opened}, settings_in(Path("/")), lambda: facts, client.send_reports)
        agent = self.agent = Agent(parts, book)
        description = _Description(self.name, f"{self.name}-{self.boots}")
        presence = Presence(PresenceParts(client, _Enrolled(), description, agent, BEAT_SECONDS))  # type: ignore[arg-type]
        self._jobs = [self._loop.create_task(agent.run()), self._loop.create_task(presence.run())]
        for job in self._jobs:
            job.add_done_callback(self._dead)
        self._loop.settle()

    @property
    def alive(self) -> bool:
        return self.agent is not None

    def kill(self) -> None:
        """kill -9 of the runner."""
        self._dead(None)
        self._loop.settle()

    def protected(self) -> None:
        """Have its process not die of itself."""
        self._death.at = None

    def lose_power(self) -> None:
        """The machine goes down: every workload is gone."""
        self.kill()
        self.vanished |= self.machine.workloads.keys()
        self.machine.workloads.clear()

    async def receive(self, orders: list[Order]) -> list[OrderAnswer]:
        if self.agent is None:
            raise Unavailable("connection refused")
        return await self.agent.take_orders(orders)

    def _dead(self, ended: "asyncio.Task[None] | None") -> None:
        self._death.happened.set()
        self.agent = None
        self.defect = self.defect or defect_of(ended)
        for job in self._jobs:
            job.cancel()
