"""What an enrolled node says in order to end the host, or to keep others from their work."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from sqlalchemy import text as sql

from kohakuriver.host.control.turn import Turn
from kohakuriver.host.dispatch.dispatcher import Dispatcher
from kohakuriver.host.dispatch.runner_link import RunnerLink
from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import InvalidInput, Unavailable
from kohakuriver.models.events import EventKind
from kohakuriver.models.ids import TaskId, highest_id_at
from kohakuriver.models.records import changed
from kohakuriver.wire.messages import Heartbeat, TaskReport, decode
from support.host.api import ApiHarness, play
from support.host.control import Room, control_room
from support.host.signing_node import SigningNode
from support.host.task_records import with_facts

REGISTRATION = {"hostname": "evil", "url": "http://n:8001", "total_cores": 2, "total_ram_bytes": 1 << 30}
ATTEMPT = {"task_id": "5", "attempt": 1, "status": "running", "revision": 0}
GPU = {"gpu_id": 0, "uuid": "u" * 200, "name": "n" * 200, "memory_total_bytes": 1}
SAMPLE = {
    "at": "2026-01-01T00:00:00Z",
    "cpu_percent": 1,
    "memory_percent": 1,
    "memory_used_bytes": 1,
    "memory_total_bytes": 1,
}
DEEP = b"[" * 100_000 + b"]" * 100_000  # Python 3.13 reads some 10,000
HUGE = 1 << 63


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    """Traces of what fails on purpose are long, and slow to be shown."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@contextlib.asynccontextmanager
async def dispatching(harness: ApiHarness) -> AsyncIterator[Dispatcher]:
    """The host's dispatcher beside its control room, as the composition root has them."""
    dispatcher = Dispatcher(harness.room.control.runners)
    harness.room.control.runners.wake_dispatch = dispatcher.wake
    running = asyncio.create_task(dispatcher.run())
    try:
        yield dispatcher
        assert not running.done(), "the dispatcher has ended, and the host with it"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(what: Any) -> None:
    async with asyncio.timeout(20):
        while not await what():
            await asyncio.sleep(0.01)


async def others_go_on(harness: ApiHarness) -> None:
    body = {"command": "true", "registry_image": "busybox"}
    calls = [harness.call("otto", "POST", "/api/submit", json=body) for _ in range(40)]
    assert [answer.status_code for answer in await asyncio.gather(*calls)] == [202] * 40


IMPOSSIBLE_URLS = ["http://n:99999", "http://n:0", "http://n:65536", "evil:" + "9" * 400, "x" * 10_000]


@pytest.mark.parametrize("url", IMPOSSIBLE_URLS, ids=lambda url: url[:20])
def test_a_registration_with_an_address_that_cannot_be_is_refused(url: str, tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        node = await SigningNode(harness, "evil").enrol()
        assert (await node.send("POST", "/api/register", {**REGISTRATION, "url": url})).status_code == 422
        await others_go_on(harness)

    play(tmp_path, scenario)


def test_a_stored_registration_that_cannot_be_keeps_no_host_from_its_start(tmp_path: Path) -> None:
    """What hosts before took in and kept: at each start it ended them again."""

    async def scenario(harness: ApiHarness) -> None:
        node = await SigningNode(harness, "evil").enrol()
        await node.send("POST", "/api/register", REGISTRATION)
        await node.send("PUT", "/api/heartbeat/evil", {"revision": 1})
        await harness.submit(targets=["evil"], registry_image="busybox")
        bad = json.dumps({**REGISTRATION, "url": "http://evil:99999"}).encode()
        update = sql("UPDATE nodes SET registration = :bad")
        await harness.room.store.write(lambda connection: connection.execute(update, {"bad": bad}))

    play(tmp_path, scenario)

    async def after(harness: ApiHarness) -> None:
        async with dispatching(harness):
            (node,) = (await harness.call("vera", "GET", "/api/nodes")).json()
            assert node["hostname"] == "evil"
            await others_go_on(harness)
            # Its runner is told to register anew, and may.
            told = await harness.room.control.runners.heartbeat("evil", Heartbeat(revision=9))
            assert not told.known

    play(tmp_path, after)


@pytest.mark.parametrize(
    "broken",
    [RecursionError("deep"), ValueError("Port out of range 0-65535"), OverflowError("long"), KeyError("x")],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_at_one_node_is_shown_there_and_keeps_no_other_from_its_orders(
    broken: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def request(_link: RunnerLink, node: str, *call: Any) -> Any:
        body = call[3]
        if node == "evil":
            raise broken
        return 200, json.dumps([{"order_id": 1, "accepted": True} for _ in json.loads(body)]).encode(), {}

    monkeypatch.setattr(RunnerLink, "request", request)

    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("evil")
        await harness.room.join("good")
        async with dispatching(harness):
            await harness.submit(targets=["evil"], registry_image="busybox")
            await harness.submit(targets=["good"], registry_image="busybox")

            async def good_has_its_order() -> bool:
                return not harness.room.control.runners.orders_for("good", 1)

            async def evil_shows_it() -> bool:
                nodes = {node.row.hostname: node for node in harness.room.control.nodes.snapshots()}
                return any("cannot give it orders" in fault for fault in nodes["evil"].faults)

            await until(good_has_its_order)
            await until(evil_shows_it)
            assert harness.room.control.runners.orders_for("evil", 1)

    play(tmp_path, scenario)


@pytest.mark.parametrize("kind", [Heartbeat, TaskReport, list[TaskReport], dict[str, Any], list[Any]])
def test_brackets_nested_too_deep_are_an_input_that_does_not_fit(kind: Any) -> None:
    for data in (DEEP, b'{"unknown":' + DEEP + b"}", b'{"settings":' + DEEP + b"}", b"[" * 200_000):
        with pytest.raises(InvalidInput):
            decode(data, kind)


HOSTILE: list[tuple[str, str, Any]] = [
    ("POST", "/api/updates", [{"started_at": "2026-01-01T00:00:00"}]),
    ("POST", "/api/updates", [{"completed_at": "0001-01-01T00:00:00+14:00"}]),
    ("POST", "/api/updates", [{"completed_at": "9999-12-31T23:59:59-14:00"}]),
    ("POST", "/api/updates", [{"exit_code": HUGE}]),
    ("POST", "/api/updates", [{"stdout_bytes": HUGE}]),
    ("POST", "/api/updates", [{"stderr_bytes": -1}]),
    ("POST", "/api/updates", [{"revision": HUGE}]),
    ("POST", "/api/updates", [{"revision": (1 << 63) - 1}]),
    ("POST", "/api/updates", [{"attempt": 1 << 64}]),
    ("POST", "/api/update", {"ssh_port": 1 << 70}),
    ("PUT", "/api/heartbeat/evil", {"orders_seen": HUGE}),
    ("PUT", "/api/heartbeat/evil", {"revision": 1 << 64}),
    ("PUT", "/api/heartbeat/evil", {"memory_used_bytes": HUGE}),
    ("PUT", "/api/heartbeat/evil", {"cpu_percent": 1e300}),
    (
        "PUT",
        "/api/heartbeat/evil",
        {"attempts": [{**ATTEMPT, "attempt": HUGE}]},
    ),
    (
        "PUT",
        "/api/heartbeat/evil",
        {"attempts": [{**ATTEMPT, "task_id": "x"}]},
    ),
    (
        "PUT",
        "/api/heartbeat/evil",
        {"gpu_info": [GPU] * 5000},
    ),
    ("POST", "/api/register", {**REGISTRATION, "total_ram_bytes": 1 << 80}),
    ("POST", "/api/register", {**REGISTRATION, "total_cores": 1 << 40}),
    ("POST", "/api/register", {**REGISTRATION, "heartbeat_interval_seconds": 1e308}),
    ("POST", "/api/register", {**REGISTRATION, "boot_id": "b" * 100_000}),
    ("POST", "/api/register", {**REGISTRATION, "settings": {"a": {"b": {"c": [[[1]]]}}}}),
    ("POST", "/api/register", {**REGISTRATION, "capabilities": ["c"] * 10_000}),
]


@pytest.mark.parametrize(("method", "path", "claim"), HOSTILE, ids=lambda part: str(part)[:60])
def test_numbers_times_and_sizes_that_cannot_be_are_refused_where_they_come_in(
    method: str, path: str, claim: Any, tmp_path: Path
) -> None:
    async def scenario(harness: ApiHarness) -> None:
        node = await SigningNode(harness, "evil").enrol()
        await node.send("POST", "/api/register", REGISTRATION)
        await node.send("PUT", "/api/heartbeat/evil", {"revision": 1})
        task = await harness.submit(targets=["evil"], registry_image="busybox")
        await harness.room.accept_orders("evil")
        report = {"task_id": task, "status": "completed", "attempt": 1, "revision": 1}
        message = [{**report, **claim[0]}] if isinstance(claim, list) else claim
        if path == "/api/update":
            message = {**report, **claim}
        hostile, *innocent = await asyncio.gather(
            node.send(method, path, message),
            *(harness.call("otto", "POST", "/api/submit", json={"command": "true"}) for _ in range(40)),
        )
        assert hostile.status_code == 422, hostile.text
        assert [answer.status_code for answer in innocent] == [202] * 40

    play(tmp_path, scenario)


def test_an_end_is_not_lost_by_a_long_message(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        node = await SigningNode(harness, "evil").enrol()
        await node.send("POST", "/api/register", REGISTRATION)
        await node.send("PUT", "/api/heartbeat/evil", {"revision": 1, "faults": ["f" * 5000] * 300})
        (shown,) = harness.room.control.nodes.snapshots()
        assert len(shown.faults) == 50
        assert max(map(len, shown.faults)) <= 1000
        await node.send("PUT", "/api/heartbeat/evil", {"revision": 2})
        task = await harness.submit(targets=["evil"], registry_image="busybox")
        await harness.room.accept_orders("evil")
        said = "first " + "x" * (1 << 20) + " last"
        report = {"task_id": task, "status": "failed", "attempt": 1, "revision": 1, "message": said}
        assert (await node.send("POST", "/api/updates", [report])).json() == {"committed": 1}
        kept = (await harness.call("otto", "GET", f"/api/status/{task}")).json()
        assert kept["status"] == "failed"
        assert len(kept["error_message"]) <= 4000
        assert kept["error_message"].startswith("first x")
        assert kept["error_message"].endswith("x last")

    play(tmp_path, scenario)


def test_ids_never_follow_a_node_beyond_now(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        room = harness.room
        await room.join("evil")
        year_ms = 365 * 86_400_000
        for ahead_ms in (1000, 3_000_000, year_ms, 60 * year_ms):
            now_ms = int(datetime.now(UTC).timestamp() * 1000)
            await room.beat("evil", orders_seen=highest_id_at(now_ms + ahead_ms))
            task = int(await harness.submit(registry_image="busybox"))
            assert task <= highest_id_at(int(datetime.now(UTC).timestamp() * 1000))

    play(tmp_path, scenario)


def poisonous(turn: Turn) -> None:
    """Changes something and fails, as a defect would have it."""
    turn.known_node("evil").history.clear()
    task = next(iter(turn.state.tasks.values()))
    turn.replace_task(changed(task, error_message="never committed"), EventKind.REPORTED_AGAIN)
    raise RecursionError("nobody foresaw that")


def unstorable(turn: Turn) -> None:
    """Goes well until it is written."""
    turn.replace_task(
        with_facts(next(iter(turn.state.tasks.values())), exit_code=1 << 70), EventKind.REPORTED_AGAIN
    )


def surrogates(turn: Turn) -> None:
    turn.replace_task(
        changed(next(iter(turn.state.tasks.values())), error_message="\ud800"), EventKind.REPORTED_AGAIN
    )


@pytest.mark.parametrize("poison", [poisonous, unstorable, surrogates])
def test_a_failing_command_fails_alone(poison: Any, tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        room = harness.room
        await room.join("evil")
        first = await room.submit("evil")
        loop = room.control.loop
        answers = await asyncio.gather(
            *(harness.room.submit("evil") for _ in range(20)),
            *(loop.call(poison) for _ in range(3)),
            *(harness.room.submit("evil") for _ in range(20)),
            return_exceptions=True,
        )
        failed = [answer for answer in answers if isinstance(answer, Exception)]
        assert len(failed) == 3
        assert all(isinstance(answer, Unavailable) for answer in failed)
        ids = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert len(set(ids)) == 40
        await loop.call(lambda _turn: None)
        # Each that was answered is there, once; what the failing ones did is nowhere.
        for task_id in (first, *ids):
            task = await room.control.tasks.find(task_id)
            assert (task.error_message or "").find("never committed") < 0
            live = room.control.tasks.live(task_id)
            assert live is not None
            assert live.state is task.state
        assert len(await room.control.tasks.history(ids[0])) >= 1
        assert not room.control.figures.faults()

    play(tmp_path, scenario)


def test_work_that_cannot_be_placed_keeps_nobody_from_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("good")
        monkeypatch.setattr("kohakuriver.host.control.loop.place", broken)
        await others_go_on(harness)
        assert [part for part, _ in harness.room.control.figures.faults()] == ["placing"]
        monkeypatch.undo()

        async def placed() -> bool:
            await harness.room.beat("good")
            return bool(harness.room.control.figures.count_by_state().get(TaskState.ASSIGNING))

        await until(placed)
        assert not harness.room.control.figures.faults()

    play(tmp_path, scenario)


def test_a_node_whose_words_make_the_host_fail_is_shown_and_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def broken(_turn: Turn, hostname: str, **_: object) -> None:
        tried.append(hostname)
        raise KeyError("a defect")

    async def scenario(room: Room) -> None:
        await room.join("evil")
        await room.join("good")
        report = TaskReport(task_id="5", status=TaskState.RUNNING, attempt=1, revision=1)
        monkeypatch.setattr("kohakuriver.host.control.nodes.reports.apply_reports", broken)
        for _ in range(50):
            with pytest.raises(Unavailable):
                await room.control.runners.apply_reports("evil", [report])
        assert len(tried) < 5
        nodes = {node.row.hostname: node for node in room.control.nodes.snapshots()}
        assert any("reports" in fault for fault in nodes["evil"].faults)
        assert not nodes["good"].faults
        monkeypatch.undo()

        async def taken() -> bool:
            with contextlib.suppress(Unavailable):
                return await room.control.runners.apply_reports("evil", [report]) == 1
            return False

        await until(taken)
        assert not {node.row.hostname: node for node in room.control.nodes.snapshots()}["evil"].faults

    async def run() -> None:
        async with control_room(tmp_path) as room:
            await scenario(room)

    asyncio.run(run())


def test_a_node_fills_neither_memory_nor_histories_of_others(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        node = await SigningNode(harness, "evil").enrol()
        await node.send("POST", "/api/register", REGISTRATION)
        listed = [{**ATTEMPT, "task_id": str(10**15 + number)} for number in range(5000)]
        beat = {"revision": 1, "attempts": listed, "history": [{**SAMPLE, "gpu_info": [GPU] * 500}] * 20}
        answer = await node.send("PUT", "/api/heartbeat/evil", beat)
        assert len(answer.json()["end_attempts"]) == 1000
        live = harness.room.control.loop.state.nodes["evil"]
        assert live.figures is not None
        assert not live.figures.attempts
        assert max(len(sample.gpu_info) for sample in live.history) == 64
        await harness.room.join("good")
        task = await harness.submit(targets=["good"], registry_image="busybox")
        report = {"task_id": task, "status": "failed", "attempt": 1, "revision": 1}
        for _ in range(5):
            await node.send("POST", "/api/updates", [report] * 200)
        told = await harness.room.control.tasks.history(TaskId(int(task)))
        assert 1 <= [event.kind for event in told].count("stale_report") <= 200

    play(tmp_path, scenario)
