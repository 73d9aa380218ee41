"""Strangers who ask to be let in as nodes: they keep nobody else out, and the control loop from no work."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.control import cluster_control
from kohakuriver.host.control.nodes import pending_runners
from kohakuriver.host.control.nodes.pending_runners import (
    MAX_WAITING,
    MAX_WAITING_PER_ADDRESS,
    PendingRunners,
)
from kohakuriver.models.enums import EnrolState
from kohakuriver.models.errors import Denied, NotFound, TooMany
from kohakuriver.wire.messages import EnrolRequest
from kohakuriver.wire.trust.enrolment import JoinToken, join_proof
from kohakuriver.wire.trust.identity import Identity, fingerprint_of
from support.host.api import ApiHarness
from support.host.api import play as play_api
from support.host.control import Room, control_room
from support.messages.raw_http import until

HONEST, EVIL = "192.0.2.1", "198.51.100.9"


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def key() -> str:
    return Identity.generate().public_key


def play(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    scenario: Callable[[Room, Watch], Coroutine[Any, Any, None]],
    check_seconds: float = 10,
) -> None:
    watch = Watch()
    monkeypatch.setattr(cluster_control, "PendingRunners", lambda _: PendingRunners(watch))

    async def run() -> None:
        async with control_room(folder, check_seconds) as room:
            await scenario(room, watch)

    asyncio.run(run())


async def ask(room: Room, name: str, public_key: str, address: str) -> EnrolState:
    return (
        await room.control.runners.enrol(EnrolRequest(hostname=name, public_key=public_key), address)
    ).state


async def crowd(room: Room, watch: Watch, count: int, address: str) -> None:
    """So many strangers, as slowly as it has to be."""
    for number in range(count):
        watch.now += 1
        await ask(room, f"evil{number}", key(), address)


def test_a_crowd_from_one_address_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(room: Room, watch: Watch) -> None:
        early, late = key(), key()
        assert await ask(room, "early", early, HONEST) is EnrolState.PENDING
        await crowd(room, watch, MAX_WAITING_PER_ADDRESS + 20, EVIL)
        assert await ask(room, "late", late, HONEST) is EnrolState.PENDING
        waiting = {row.hostname for row in room.control.nodes.enrolments()}
        assert {"early", "late"} <= waiting
        assert len(waiting) == MAX_WAITING_PER_ADDRESS + 2
        for name in ("early", "late"):
            await room.control.nodes.approve(name, None, "admin")
        assert await ask(room, "late", late, HONEST) is EnrolState.APPROVED

    play(tmp_path, monkeypatch, scenario)


def test_of_a_full_room_the_address_with_most_makes_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_runners, "MAX_WAITING", 30)

    async def scenario(room: Room, watch: Watch) -> None:
        for address in range(2, 6):
            await crowd(room, watch, 7, f"198.51.100.{address}")
        await crowd(room, watch, 5, "2001:db8::1")
        assert await ask(room, "honest", key(), HONEST) is EnrolState.PENDING
        assert len(room.control.nodes.enrolments()) == 30
        assert "honest" in {row.hostname for row in room.control.nodes.enrolments()}

    play(tmp_path, monkeypatch, scenario)
    assert MAX_WAITING > MAX_WAITING_PER_ADDRESS


def test_one_address_cannot_keep_the_control_loop_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(room: Room, watch: Watch) -> None:
        waiting = key()
        await ask(room, "n1", waiting, HONEST)
        _, text = await room.control.nodes.create_join_token("admin", 1)
        before = room.control.figures.counters.commands
        refused = 0
        for number in range(500):
            address = f"2001:db8:0:7::{number:x}"  # one machine has all of these
            try:
                await ask(room, f"evil{number}", key(), address)
            except TooMany:
                refused += 1
            forged = EnrolRequest(hostname="n2", public_key=key(), join_token_id="x" * 8, join_proof="x")
            with pytest.raises(Denied):
                await room.control.runners.enrol(forged, address)
            assert await ask(room, "n1", waiting, HONEST) is EnrolState.PENDING  # who waits may ask on
        assert refused > 400
        assert room.control.figures.counters.commands - before < 100
        assert await ask(room, "n3", key(), HONEST) is EnrolState.PENDING
        token, mine = JoinToken.parse(text), key()
        proof = join_proof(token.secret, "n4", mine, room.control.host_public_key)
        good = EnrolRequest(hostname="n4", public_key=mine, join_token_id=token.token_id, join_proof=proof)
        assert (await room.control.runners.enrol(good, "2001:db8:0:7::1")).state is EnrolState.APPROVED

    play(tmp_path, monkeypatch, scenario)


def test_who_does_not_ask_any_more_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(room: Room, watch: Watch) -> None:
        patient, gone = key(), key()
        await ask(room, "patient", patient, HONEST)
        await ask(room, "gone", gone, HONEST)
        watch.now += 3000
        await ask(room, "patient", patient, HONEST)
        watch.now += 3000
        await until(lambda: [row.hostname for row in room.control.nodes.enrolments()] == ["patient"])
        assert await ask(room, "gone", gone, HONEST) is EnrolState.PENDING

    play(tmp_path, monkeypatch, scenario, check_seconds=0.01)


def test_who_waited_before_a_restart_has_an_hour_to_ask_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def before(room: Room, watch: Watch) -> None:
        await ask(room, "n1", key(), HONEST)

    async def after(room: Room, watch: Watch) -> None:
        watch.now += 3000
        assert len(room.control.nodes.enrolments()) == 1
        watch.now += 3000
        await until(lambda: not room.control.nodes.enrolments())

    play(tmp_path, monkeypatch, before)
    play(tmp_path, monkeypatch, after, check_seconds=0.01)
    play(tmp_path, monkeypatch, _nobody_waits)


async def _nobody_waits(room: Room, watch: Watch) -> None:
    assert room.control.nodes.enrolments() == []


def test_who_is_refused_does_not_wait_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(room: Room, watch: Watch) -> None:
        evil, honest = key(), key()
        await ask(room, "n1", evil, EVIL)
        await ask(room, "n1", honest, HONEST)
        assert await room.control.nodes.reject("n1", fingerprint_of(evil), "admin") == 1
        with pytest.raises(Denied, match="refused"):
            await ask(room, "n1", evil, EVIL)
        with pytest.raises(NotFound):
            await room.control.nodes.reject("n1", fingerprint_of(evil), "admin")
        await room.control.nodes.approve("n1", None, "admin")  # there is but one left
        assert await ask(room, "n1", honest, HONEST) is EnrolState.APPROVED
        watch.now += 25 * 3600
        with pytest.raises(Exception, match="another key"):
            await ask(room, "n1", evil, EVIL)

    play(tmp_path, monkeypatch, scenario)


def test_a_hundred_of_one_name_are_refused_at_once_over_the_interface(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        for _ in range(20):
            body = {"hostname": "n1", "public_key": key()}
            assert (await harness.call(None, "POST", "/api/enrol", json=body)).json()["state"] == "pending"
        for who, status in ((None, 401), ("otto", 403), ("ada", 200), ("ada", 404)):
            answer = await harness.call(who, "POST", "/api/nodes/n1/reject", json={})
            assert answer.status_code == status, answer.text
        assert (await harness.call("ada", "GET", "/api/nodes")).json() == []
        again = await harness.call(None, "POST", "/api/enrol", json=body)
        assert again.status_code == 403

    play_api(tmp_path, scenario)


def test_a_flood_of_enrolments_is_told_to_come_later(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        statuses = set()
        for _ in range(60):
            body = {"hostname": "n1", "public_key": key()}
            statuses.add((await harness.call(None, "POST", "/api/enrol", json=body)).status_code)
        assert statuses == {200, 429}

    play_api(tmp_path, scenario)
