"""Attacks on the host's disk and memory by work that waits: large batches, many tasks, long texts.

What a user may have waiting is capped, a batch is stored once, and no request takes the room that ends of
work need. On a disk that others have filled, work can still be ended.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.control.tasks.waiting_work import TRUSTED_FACTOR, WaitingLimits
from kohakuriver.host.store.disk_space import DiskSpace
from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.tasks import TaskSpec
from support.host.api import ApiHarness, api_harness, play
from support.host.control import Room, control_room
from support.machine.small_disk import SmallDisk, small_disk

MIB = 1 << 20
NODES = 30


def bulk(size: int) -> dict[str, str]:
    """Environment of about that size, in values that the kernel would take."""
    return {f"V{index}": "x" * 100_000 for index in range(size // 100_000)}


def state_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("host.db*"))


async def until(condition: object, what: str, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.02)


async def joined(harness: ApiHarness, count: int = NODES) -> list[str]:
    names = [f"n{index}" for index in range(count)]
    for name in names:
        await harness.room.join(name)
    return names


def test_one_request_of_a_user_does_not_multiply_itself_on_the_disk(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        names = await joined(harness)
        before = state_bytes(tmp_path)
        body: dict[str, Any] = {"command": "true", "env_vars": bulk(960_000), "targets": names}
        answer = await harness.call("ursula", "POST", "/api/submit", json=body)
        assert answer.status_code == 413, answer.text
        assert "16 MiB" in answer.json()["detail"]
        # What is within the sum that one request may ask for is written once, whatever its targets.
        body["targets"] = names[:15]
        answer = await harness.call("ursula", "POST", "/api/submit", json=body)
        assert answer.status_code == 202, answer.text
        assert state_bytes(tmp_path) - before < 6 * MIB
        shown = (await harness.call("ursula", "GET", f"/api/status/{answer.json()['task_ids'][7]}")).json()
        assert (shown["target"], shown["env_vars"]) == ("n7", body["env_vars"])

    play(tmp_path, scenario)


def test_a_users_waiting_work_ends_at_its_size(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        names = await joined(harness, 15)
        body = {"command": "true", "env_vars": bulk(960_000), "targets": names}
        taken: list[str] = []
        for _ in range(20):
            answer = await harness.call("ursula", "POST", "/api/submit", json=body)
            if answer.status_code != 202:
                break
            taken += answer.json()["task_ids"]
        assert answer.status_code == 429, answer.text
        assert "64 MiB" in answer.json()["detail"]
        # It is each user's own, and it is free again once the work has begun.
        other = await harness.call("ulf", "POST", "/api/submit", json=body)
        assert other.status_code == 202
        for task in taken[:15]:
            assert (await harness.call("otto", "POST", f"/api/approve/{task}")).status_code == 200
        assert (await harness.call("ursula", "POST", "/api/submit", json=body)).status_code == 202

    play(tmp_path, scenario)


@pytest.mark.parametrize("end", ["kill", "reject"])
def test_who_submits_and_ends_work_in_turn_does_not_fill_the_disk(tmp_path: Path, end: str) -> None:
    """What ended before it began stays on the disk, and counts for a day."""

    async def scenario(harness: ApiHarness) -> None:
        names = await joined(harness, 15)
        before = state_bytes(tmp_path)
        body = {"command": "true", "env_vars": bulk(960_000), "targets": names}
        for _ in range(20):
            answer = await harness.call("ursula", "POST", "/api/submit", json=body)
            if answer.status_code != 202:
                break
            for task in answer.json()["task_ids"]:
                assert (await harness.call("otto", "POST", f"/api/{end}/{task}")).status_code in (200, 202)
        assert answer.status_code == 429, answer.text
        assert "ended before they began" in answer.json()["detail"]
        assert state_bytes(tmp_path) - before < 64 * MIB
        # Neither a state that is read anew nor another user's work changes that; the next day does.
        await harness.room.control.loop.reload()
        assert (await harness.call("ursula", "POST", "/api/submit", json=body)).status_code == 429
        assert (await harness.call("ulf", "POST", "/api/submit", json=body)).status_code == 202
        given_up = harness.room.control.loop.state.waiting.given_up
        assert given_up.size_bytes("ursula", datetime.now(UTC) + timedelta(hours=23)) > 0
        assert given_up.size_bytes("ursula", datetime.now(UTC) + timedelta(hours=25)) == 0
        assert (await harness.call("ursula", "POST", "/api/submit", json=body)).status_code == 202

    play(tmp_path, scenario)


def test_a_users_waiting_work_ends_at_its_number(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        names = await joined(harness, 2)
        body = {"command": "true", "targets": names * 500}
        for _ in range(10):
            assert (await harness.call("ursula", "POST", "/api/submit", json=body)).status_code == 202
        for targets in (["n0"], names * 500):
            one = {"command": "true", "targets": targets}
            answer = await harness.call("ursula", "POST", "/api/submit", json=one)
            assert answer.status_code == 429, answer.text
            assert "10000 is the most" in answer.json()["detail"]
        assert (await harness.call("otto", "POST", "/api/submit", json=body)).status_code == 202

    play(tmp_path, scenario)


def test_what_waits_is_counted_through_every_way_in_and_out(tmp_path: Path) -> None:
    """A count that drifts would lock a user out for good, or let him in for good."""

    async def scenario() -> None:
        limits = WaitingLimits(tasks=2, mib=1)
        async with control_room(tmp_path) as room:
            await room.join(cores=1)

            def full() -> bool:
                state = room.control.loop.state
                try:
                    state.waiting.check("alice", [TaskSpec("true")], limits, datetime.now(UTC), trusted=False)
                except Exception as error:  # noqa: BLE001 - its kind is looked at
                    return type(error).__name__ == "QuotaExceeded"
                return False

            running = await room.submit()
            assert not full()
            first, second = await room.submit(), await room.submit()
            assert full()
            await room.control.tasks.kill(first)
            assert not full()
            third = await room.submit()
            assert full()
            await room.accept_orders()
            await room.report(running, TaskState.COMPLETED, 1, exit_code=0)
            assert await room.state(second) is TaskState.ASSIGNING
            assert not full()
            await room.control.tasks.kill(third)
        async with control_room(tmp_path) as again:
            waiting = await again.control.tasks.submit("alice", [TaskSpec("true")] * 2, needs_approval=True)
            state = again.control.loop.state
            assert state.waiting.tasks_of("alice") == 2
            for task in waiting.tasks:
                await again.control.tasks.reject(task.id, "otto", "no")
            assert not state.waiting.owners

    asyncio.run(scenario())


def test_an_operator_may_queue_a_sweep_of_100_000() -> None:
    limits = WaitingLimits()
    assert limits.tasks * TRUSTED_FACTOR >= 100_000


LONG: list[tuple[str, dict[str, Any], str]] = [
    ("command", {"command": "x" * 5000}, "4096"),
    ("arguments", {"arguments": ["x"] * 10_001}, "10000"),
    ("arguments", {"arguments": ["x" * 100_000] * 11}, "1 MiB"),
    ("arguments", {"arguments": ["\x01" * 100_000] * 2}, "1 MiB"),
    ("env_vars", {"env_vars": {f"V{index}": "" for index in range(4097)}}, "4096"),
    ("env_vars", {"env_vars": bulk(1_200_000)}, "1 MiB"),
    ("env_vars", {"env_vars": {"V" * 300: "x"}}, "name"),
    ("additional_mounts", {"additional_mounts": [f"/a{index}:/b{index}" for index in range(101)]}, "100"),
    ("additional_mounts.0", {"additional_mounts": ["/" + "a" * 9000 + ":/b"]}, "8400"),
    ("working_dir", {"working_dir": "/" + "x" * 5000}, "4096"),
    ("name", {"name": "x" * 64}, "name"),
    ("targets", {"targets": ["n0"] * 1001}, "1000"),
    ("targets.0", {"targets": ["n" * 5000]}, "4096"),
    ("registry_image", {"registry_image": "a" * 600}, "image"),
]


@pytest.mark.parametrize(("field", "fields", "word"), LONG, ids=[f"{one[0]}-{one[2]}" for one in LONG])
def test_every_text_and_list_of_a_submission_has_an_end(
    tmp_path: Path, field: str, fields: dict[str, Any], word: str
) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n0")
        before = harness.room.control.figures.revision
        answer = await harness.call("otto", "POST", "/api/submit", json={"command": "true", **fields})
        assert answer.status_code == 422, answer.text[:500]
        assert answer.json()["field"] == field
        assert word in answer.json()["detail"]
        assert len(answer.content) < 2000
        assert harness.room.control.figures.revision == before

    play(tmp_path, scenario)


def test_a_vps_and_what_is_said_of_work_have_an_end_too(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n0")
        task = await harness.submit("ursula")
        calls: list[tuple[str, str, str, dict[str, Any]]] = [
            ("otto", "POST", "/api/vps/create", {"json": {"name": "s", "env_vars": bulk(1_200_000)}}),
            ("otto", "POST", "/api/vps/create", {"json": {"env_vars": {f"V{i}": "" for i in range(4097)}}}),
            ("otto", "POST", "/api/vps/create", {"json": {"ssh_public_keys": ["ssh-ed25519 A"] * 101}}),
            ("otto", "POST", f"/api/reject/{task}", {"params": {"reason": "x" * 1001}}),
            ("ursula", "POST", f"/api/vps/snapshots/{task}", {"json": {"message": "x" * 501}}),
            ("ursula", "POST", "/api/auth/tokens/create", {"json": {"name": "x" * 129}}),
            ("otto", "POST", f"/api/vps/{task}/assignments", {"json": {"username": "x" * 129}}),
        ]
        for who, method, path, options in calls:
            answer = await harness.call(who, method, path, **options)
            assert answer.status_code == 422, (path, answer.text[:500])

    play(tmp_path, scenario)


def test_a_refusal_does_not_repeat_a_thousand_numbers(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n0")
        body = {"command": "x", "targets": ["n0"] * 100, "required_gpus": [list(range(1024))] * 100}
        answer = await harness.call("ursula", "POST", "/api/submit", json=body)
        assert answer.status_code == 422
        assert len(answer.content) < 2000

    play(tmp_path, scenario)


@pytest.mark.root
def test_no_request_reaches_into_the_room_that_is_kept_for_ends(tmp_path: Path) -> None:
    async def scenario(disk: SmallDisk) -> None:
        async with api_harness(disk.path) as harness:
            names = await joined(harness, 2)
            taken = await harness.submit("ursula")
            disk.fill(leave_bytes=5 * MIB)  # of which 3.2 MiB are the reserve
            room = DiskSpace(5 * MIB, 32 * MIB)
            await until(lambda: _seen_free(harness) < 6 * MIB, "the look at the disk")
            assert not room.is_short
            # Two requests at once: each by itself would find room, both together would not.
            body = {"command": "true", "env_vars": bulk(400_000), "targets": names}
            answers = await asyncio.gather(
                *(harness.call("ursula", "POST", "/api/submit", json=body) for _ in range(6))
            )
            refused = [answer for answer in answers if answer.status_code != 202]
            assert refused
            assert {answer.status_code for answer in refused} == {503}
            assert "nothing was taken in" in refused[0].json()["detail"]
            large = {"command": "true", "env_vars": bulk(960_000), "targets": names}
            assert (await harness.call("ursula", "POST", "/api/submit", json=large)).status_code == 503
            free = (await harness.room.store.room()).free_bytes
            assert free > 32 * MIB // 10
            assert (await harness.call("otto", "POST", f"/api/reject/{taken}")).status_code == 200

    with small_disk(tmp_path / "disk", 32) as disk:
        asyncio.run(scenario(disk))


def _seen_free(harness: ApiHarness) -> int:
    room = harness.room.control.loop.watch.room
    return 1 << 60 if room is None else room.free_bytes


@contextlib.asynccontextmanager
async def _room_on(disk: SmallDisk) -> AsyncIterator[Room]:
    """A control room whose last room is set aside, on a disk that has the rest of it taken."""
    async with control_room(disk.path) as room:
        await room.join(cores=1)
        reserve = disk.path / "host.db.reserve"
        await until(lambda: reserve.exists() and reserve.stat().st_size, "the last room to be kept")
        yield room


@pytest.mark.root
def test_work_is_killed_and_refused_on_a_disk_that_is_full_to_the_last_byte(tmp_path: Path) -> None:
    large = (("BULK", "x" * 900_000),)

    async def scenario(disk: SmallDisk) -> None:
        async with _room_on(disk) as room:
            running = await room.submit(env_vars=large)
            await room.accept_orders()
            await room.report(running, TaskState.RUNNING, 1)
            waiting = [await room.submit(env_vars=large) for _ in range(3)]
            many = await room.control.tasks.submit("alice", [TaskSpec("x")] * 300, needs_approval=False)
            waiting += [task.id for task in many.tasks]
            asked = await room.control.tasks.submit(
                "ursula", [TaskSpec("x", env_vars=large)], needs_approval=True
            )
            disk.fill()
            await room.control.tasks.kill(running)
            for task in waiting:
                await room.control.tasks.kill(task)
                assert await room.state(task) is TaskState.KILLED
            await room.control.tasks.reject(asked.tasks[0].id, "otto", "no room")
            await room.report(running, TaskState.KILLED, 2, exit_code=137)
            assert await room.state(running) is TaskState.KILLED
            # Nothing new is let in, and it is said why.
            await until(room.control.figures.faults, "the shortage to be seen")
            with pytest.raises(Exception, match=r"full.*nothing was taken in"):
                await room.submit()
            assert room.control.figures.faults()
            disk.empty()
            await until(lambda: not room.control.figures.faults(), "the host to take work again")
            reserve = disk.path / "host.db.reserve"
            await until(lambda: reserve.stat().st_size, "the last room to be kept again")
            await room.submit()

    with small_disk(tmp_path / "disk", 64) as disk:
        asyncio.run(scenario(disk))
        with sqlite3.connect(disk.path / "host.db") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.root
def test_a_submission_that_meets_the_full_disk_does_not_take_the_last_room(tmp_path: Path) -> None:
    async def scenario(disk: SmallDisk) -> None:
        async with _room_on(disk) as room:
            _first, task = await room.submit(), await room.submit()
            disk.fill()
            for _ in range(50):
                with contextlib.suppress(Unavailable):
                    await room.submit(env_vars=(("BULK", "x" * 500_000),))
            await room.control.tasks.kill(task)
            assert await room.state(task) is TaskState.KILLED

    with small_disk(tmp_path / "disk", 64) as disk:
        asyncio.run(scenario(disk))


def test_lists_of_large_tasks_do_not_fill_the_hosts_memory(tmp_path: Path) -> None:
    """Each task within its own limit, killed so that the next may wait, and then anybody lists them."""

    async def scenario(harness: ApiHarness) -> None:
        (node,) = await joined(harness, 1)
        many = ["x" * 1000] * 900
        asked: tuple[dict[str, Any], ...] = (
            {"arguments": many},
            {"env_vars": bulk(900_000)},
            {"arguments": ["a"], "env_vars": {"A": "b"}},
        )
        made = []
        for number in range(60):
            body = {"command": "true", "targets": [node], **asked[number % 3]}
            answer = await harness.call("ursula", "POST", "/api/submit", json=body)
            assert answer.status_code == 202, answer.text
            made += answer.json()["task_ids"]
            assert (await harness.call("ursula", "POST", f"/api/kill/{made[-1]}")).status_code == 202
        for who, path in (("vera", ""), ("ursula", ""), ("ursula", "/my")):
            answer = await harness.call(who, "GET", f"/api/tasks{path}", params={"limit": 1000})
            assert len(answer.content) < MIB, f"{who} {path}"
            listed = answer.json()
            assert [task["task_id"] for task in listed] == made[::-1]
            assert [task["shortened"] for task in listed] == [False, True, True] * 20
            assert listed[2]["arguments"] == many[: len(listed[2]["arguments"])] != []
        whole = (await harness.call("ursula", "GET", f"/api/status/{made[0]}")).json()
        assert (whole["arguments"], whole["shortened"]) == (many, False)

    play(tmp_path, scenario)
