"""All that an enrolled node can say, to a real control room, dispatcher and store.

Whatever it says: the host lives, no command fails for a reason that nobody foresaw, others are served, and
ids stay where the clock is.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.host.dispatch.dispatcher import Dispatcher
from kohakuriver.host.dispatch.runner_link import Bounds, RunnerLink, as_signed, dial_url
from kohakuriver.models.errors import Conflict, InvalidInput, KohakuRiverError
from kohakuriver.models.ids import highest_id_at
from kohakuriver.wire import file_frames, messages, terminal_frames
from kohakuriver.wire.messages import (
    Heartbeat,
    OrderAnswer,
    Registration,
    TaskReport,
    decode,
)
from kohakuriver.wire.snapshots import SnapshotState
from kohakuriver.wire.trust.identity import LinkKeys
from support.host.control import Room, control_room
from support.machine.looped import Looped
from support.machine.time_limit import ends_soon
from support.messages.fuzz_settings import search
from support.messages.hostile_json import (
    NUMBERS,
    TIMES,
    Pairs,
    Raw,
    extremes,
    hostile,
    of_type,
    one_spoilt,
    structs_of,
    written,
)

MESSAGES = [
    *structs_of(messages),
    *structs_of(file_frames),
    *(list[kind] for kind in (TaskReport, OrderAnswer, SnapshotState)),  # type: ignore[valid-type]
]
_PORTS = st.sampled_from(["0", "1", "65535", "65536", "99999"]) | st.sampled_from(NUMBERS)
_URLS = _PORTS.map("http://n:{}".format) | st.sampled_from(["http://n", "n:1", "http://[::1]:8001/"])
REGISTRATION = {"hostname": "evil", "boot_id": "boot-1", "session": "", "capabilities": [], "url": _URLS}
STATES = ["running", "paused", "completed", "failed", "killed", "stopped"]


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: getattr(kind, "__name__", str(kind)))
def test_a_message_is_read_or_does_not_fit(kind: Any) -> None:
    @search
    @given(hostile(of_type(kind)))
    def reads(data: bytes) -> None:
        with ends_soon(), contextlib.suppress(InvalidInput):
            decode(data, kind)

    reads()


@search
@given(extremes.map(written) | st.binary(max_size=200))
def test_what_is_no_message_does_not_fit(data: bytes) -> None:
    for kind in (Heartbeat, list[TaskReport], dict[str, Any]):
        with ends_soon(), contextlib.suppress(InvalidInput):
            decode(data, kind)


class Wire(RunnerLink):
    """As far as the wire, which answers what the example says."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.answers: list[bytes] = []

    async def request(
        self,
        node: str,
        keys: LinkKeys,
        method: str,
        url: str,
        body: bytes = b"",
        bounds: Bounds | None = None,
    ) -> tuple[int, bytes, Mapping[str, str]]:
        as_signed(url)
        return 200, self.answers.pop() if self.answers else b"[]", {}


class Harness:
    """A control room with a node that lies and one that does not, and the host's dispatcher beside it."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.wire = Wire()
        dispatcher = Dispatcher(room.control.runners, self.wire)
        room.control.runners.wake_dispatch = dispatcher.wake
        self.serving = asyncio.create_task(dispatcher.run())

    async def say(self, kind: Any, data: bytes) -> None:
        """Hand a message on as the API does."""
        control = self.room.control
        with contextlib.suppress(KohakuRiverError):
            message = decode(data, kind)
            if isinstance(message, Registration):
                await control.runners.register("evil", message, "192.0.2.7")
            elif isinstance(message, Heartbeat):
                await control.runners.heartbeat("evil", message)
            elif kind == list[TaskReport]:
                await control.runners.apply_reports("evil", message)
            else:
                await control.runners.orders_answered("evil", message)

    async def check(self) -> None:
        control = self.room.control
        assert not self.serving.done(), "the dispatcher has ended, and the host with it"
        assert control.figures.counters.failed_commands == 0, (
            "a command failed for a reason that nobody foresaw"
        )
        assert control.figures.counters.failed_commits == 0
        assert not control.figures.faults()
        task = await self.room.submit("good")
        assert task <= highest_id_at(int(datetime.now(UTC).timestamp() * 1000) + 3_600_000)
        with contextlib.suppress(Conflict):  # its node may have refused it by then
            await control.tasks.kill(task)
        shown = control.nodes.snapshots()
        assert [node.row.hostname for node in shown] == ["evil", "good"]
        assert not [fault for node in shown for fault in node.faults if "host" in fault and "log" in fault]
        # As a host that is started again would find it.
        await control.loop.reload()
        assert control.loop.fault is None

    async def new_task(self) -> int:
        """A task that the node holds, which makes its words count."""
        await self.room.register("evil", cores=60_000)
        self.room.control.loop.state.nodes["evil"].beat_revision = -1
        await self.room.beat("evil")
        self.room.control.loop.state.nodes["evil"].beat_revision = -1
        task = await self.room.submit("evil")
        await self.room.accept_orders("evil")
        return int(task)


@contextlib.asynccontextmanager
async def open_harness(folder: Path) -> AsyncIterator[Harness]:
    async with control_room(folder) as room:
        await room.join("good", cores=60_000)
        await room.join("evil", cores=60_000)
        harness = Harness(room)
        yield harness
        harness.serving.cancel()
        await asyncio.gather(harness.serving, return_exceptions=True)


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looped[Harness]]:
    looped = Looped(open_harness(tmp_path_factory.mktemp("host")))
    yield looped
    looped.close()


_NUMBERS = st.sampled_from(NUMBERS).map(Raw)


def words(task: int) -> st.SearchStrategy[tuple[Any, bytes]]:
    """One message of the node, which mostly is about that task."""
    report = {
        "task_id": str(task),
        "attempt": 1,
        "status": st.sampled_from(STATES),
        "revision": st.integers(1, 9),
        "started_at": st.just("2026-01-01T00:00:00Z") | st.sampled_from(TIMES),
        "exit_code": st.just(0) | _NUMBERS,
    }
    beat = {
        "boot_id": "boot-1",
        "session": "",
        "attempts": [_listed(task)],
        "orders_seen": st.sampled_from([1, 1 << 60, 1 << 62]),
    }
    sound = {"task_id": str(task), "attempt": 1, "status": "running", "revision": 9}
    reports = hostile(of_type(TaskReport), report) | one_spoilt(TaskReport, sound)
    listed = reports.map(lambda data: (list[TaskReport], b"[" + data + b"]"))
    return st.one_of(
        listed,
        listed,
        listed,
        hostile(of_type(Heartbeat), beat).map(lambda data: (Heartbeat, data)),
        hostile(of_type(list[TaskReport]), report).map(lambda data: (list[TaskReport], data)),
        hostile(of_type(list[OrderAnswer])).map(lambda data: (list[OrderAnswer], data)),
        hostile(of_type(Registration), REGISTRATION).map(lambda data: (Registration, data)),
    )


def _listed(task: int) -> Any:
    return {"task_id": str(task), "attempt": 1, "status": "running", "revision": 1}


@search
@given(data=st.data())
def test_the_host_lives_whatever_a_node_says(harness: Looped[Harness], data: st.DataObject) -> None:
    task = harness.run(harness.inside.new_task())
    for kind, text in data.draw(st.lists(words(task), min_size=4, max_size=10)):
        harness.run(harness.inside.say(kind, text))
    harness.inside.wire.answers = [data.draw(hostile(of_type(list[OrderAnswer])))]
    harness.run(harness.inside.check())


def _sound_but_for_its_url(url: str) -> bytes:
    return written(
        Pairs([("hostname", "evil"), ("url", url), ("total_cores", 1), ("total_ram_bytes", 1 << 30)])
    )


@search
@given(data=hostile(of_type(Registration), REGISTRATION) | _URLS.map(_sound_but_for_its_url))
def test_a_registration_that_was_taken_can_be_dialled(data: bytes) -> None:
    try:
        told = decode(data, Registration)
    except InvalidInput:
        return
    assert 1 <= (as_signed(dial_url("192.0.2.7", told.url)).port or 0) <= 65535


@search
@given(hostile(st.one_of([of_type(kind) for kind in structs_of(terminal_frames)])))
def test_a_terminal_frame_is_read_or_does_not_fit(data: bytes) -> None:
    text = data.decode("utf-8", "surrogatepass")
    with ends_soon(), contextlib.suppress(InvalidInput):
        terminal_frames.read_control(text)
    with ends_soon(), contextlib.suppress(InvalidInput):
        terminal_frames.read_data(data)
