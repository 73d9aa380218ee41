"""Genuine messages of a runner that come again, long after their time: they change nothing at the host."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kohakuriver.models.enums import NodeStatus, TaskState
from kohakuriver.wire.messages import (
    SESSIONS,
    AttemptState,
    EnrolRequest,
    Heartbeat,
    HeartbeatAnswer,
    Registration,
    RegistrationAnswer,
)
from kohakuriver.wire.trust.identity import Identity
from support.host.control import CLUSTER_ID, Room, control_room


@dataclass
class Runner:
    """A runner's end of the link, which keeps all that it ever sent."""

    room: Room
    boot_id: str = "boot-1"
    session: str = ""
    revision: int = 0
    orders_seen: int = 0

    async def enrol(self) -> None:
        await self.room.control.runners.enrol(
            EnrolRequest(hostname="n1", public_key=Identity.generate().public_key)
        )
        await self.room.control.nodes.approve("n1", None, "admin")

    def registration(self, cores: int = 2) -> Registration:
        return Registration(
            hostname="n1",
            url="http://127.0.0.1:8001",
            total_cores=cores,
            total_ram_bytes=1 << 30,
            shared_cluster_id=CLUSTER_ID,
            boot_id=self.boot_id,
            capabilities=["command", SESSIONS],
            session=self.session,
        )

    async def send(self, registration: Registration) -> RegistrationAnswer:
        return await self.room.control.runners.register("n1", registration, "127.0.0.1")

    async def register(self) -> Registration:
        """As presence does it; returns the message that was taken in."""
        offer = await self.send(self.registration())
        assert not offer.known
        self.session = offer.session
        taken = self.registration()
        answer = await self.send(taken)
        assert answer.known
        self.session = answer.session
        return taken

    def heartbeat(self, *attempts: AttemptState) -> Heartbeat:
        self.revision += 1
        return Heartbeat(
            revision=self.revision,
            boot_id=self.boot_id,
            session=self.session,
            attempts=list(attempts),
            orders_seen=self.orders_seen,
        )

    async def beat(self, beat: Heartbeat) -> HeartbeatAnswer:
        return await self.room.control.runners.heartbeat("n1", beat)


def play(scenario: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


def running(task_id: int) -> AttemptState:
    return AttemptState(task_id=str(task_id), attempt=1, status=TaskState.RUNNING, revision=1)


def test_an_old_heartbeat_that_reaches_a_restarted_host_ends_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_room(tmp_path) as room:
            runner = Runner(room)
            await runner.enrol()
            await runner.register()
            recorded = runner.heartbeat()
            assert (await runner.beat(recorded)).known
            task_id = await room.submit()
            await room.accept_orders()
            await room.report(task_id, TaskState.RUNNING, 1)
        async with control_room(tmp_path) as room:
            runner.room = room
            assert not (await runner.beat(recorded)).known
            assert await room.state(task_id) is TaskState.RUNNING
            # The runner itself is asked to register again, and its own list is believed.
            assert not (await runner.beat(runner.heartbeat(running(task_id)))).known
            await runner.register()
            answer = await runner.beat(runner.heartbeat(running(task_id)))
            assert (answer.known, answer.end_attempts) == (True, [])
            assert await room.state(task_id) is TaskState.RUNNING

    play(scenario)


def test_an_earlier_boots_registration_and_heartbeat_are_not_believed_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_room(tmp_path) as room:
            runner = Runner(room)
            await runner.enrol()
            old_registration = await runner.register()
            old_beat = runner.heartbeat()
            runner.boot_id, runner.revision = "boot-2", 0
            await runner.register()
            await runner.beat(runner.heartbeat())
            task_id = await room.submit()
            await room.accept_orders()
            await room.report(task_id, TaskState.RUNNING, 1)
            assert not (await runner.send(old_registration)).known
            assert not (await runner.beat(old_beat)).known
            assert room.control.nodes.snapshots()[0].status is NodeStatus.ONLINE
            assert await room.state(task_id) is TaskState.RUNNING
            assert (await runner.beat(runner.heartbeat(running(task_id)))).known

    play(scenario)


def test_a_repeated_registration_takes_neither_the_vps_nor_the_next_offer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_room(tmp_path) as room:
            runner = Runner(room)
            await runner.enrol()
            taken = await runner.register()
            assert (await runner.beat(runner.heartbeat())).known
            offer = await runner.send(taken)
            assert not offer.known
            assert offer.session != taken.session
            assert (await runner.beat(runner.heartbeat())).known
            # While the runner answers the offer, old registrations keep coming.
            runner.session = offer.session
            await runner.send(taken)
            assert (await runner.send(runner.registration(cores=4))).known
            assert (await runner.beat(runner.heartbeat())).known
            assert room.control.nodes.snapshots()[0].row.registration.total_cores == 4  # type: ignore[union-attr]

    play(scenario)


def test_a_runner_whose_registration_was_taken_in_unheard_registers_once_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_room(tmp_path) as room:
            runner = Runner(room)
            await runner.enrol()
            runner.session = (await runner.send(runner.registration())).session
            await runner.send(runner.registration())
            await runner.register()
            assert (await runner.beat(runner.heartbeat())).known

    play(scenario)
