"""An attack on everybody's queue: one task that waits for a whole node, beside work that has no end."""

from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from kohakuriver.host.control import loop
from kohakuriver.models.resources import Demand
from kohakuriver.scheduling.nodes import NodeTable
from kohakuriver.scheduling.placement import (
    RESERVATION_SECONDS,
    REST_SECONDS,
    STARVATION_SECONDS,
    place,
)
from kohakuriver.scheduling.queue import QueuedTask
from support.host.api import ApiHarness, play
from support.scheduling.values import NOW, commit, node, on, pairs, queue_of, queued

LONG = STARVATION_SECONDS + 1


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize("whole", [Demand(cores=8), on("n1", cores=8)], ids=["anywhere", "on-the-node"])
def test_the_room_beside_a_vps_stays_open_to_others(whole: Demand) -> None:
    table = NodeTable([node("n1", cores=8)])
    table.take("n1", Demand(cores=1), lasting=True)
    queue = queue_of(queued(1, whole, waited_seconds=LONG))
    for day in range(30):
        moment = later(day * 86_400)
        queue.add(QueuedTask(2 + day, Demand(cores=1), moment))  # type: ignore[arg-type]
        result = place(queue, table, moment)
        assert (pairs(result), result.reserved) == ([(2 + day, "n1")], ())
        commit(result, queue, table)
        table.give_back("n1", Demand(cores=1))


def test_a_vps_that_comes_ends_a_reservation_and_one_that_goes_begins_it() -> None:
    table = NodeTable([node("n1", cores=4)])
    table.take("n1", Demand(cores=1))
    queue = queue_of(queued(1, Demand(cores=4), waited_seconds=LONG), queued(2, Demand(cores=1)))
    assert pairs(place(queue, table, NOW)) == []
    table.take("n1", Demand(cores=1), lasting=True)
    assert pairs(place(queue, table, NOW)) == [(2, "n1")]
    table.give_back("n1", Demand(cores=1), lasting=True)
    assert pairs(place(queue, table, NOW)) == []


def test_another_node_is_reserved_where_no_vps_stands_in_the_way() -> None:
    table = NodeTable([node("held", cores=4), node("busy", cores=4)])
    table.take("held", Demand(cores=1), lasting=True)
    table.take("busy", Demand(cores=3))
    queue = queue_of(queued(1, Demand(cores=4), waited_seconds=LONG), queued(2, Demand(cores=1)))
    result = place(queue, table, NOW)
    assert [item.node for item in result.reserved] == ["busy"]
    assert pairs(result) == [(2, "held")]


def test_work_that_never_ends_keeps_a_reservation_for_a_bounded_time() -> None:
    table = NodeTable([node("n1", cores=2)])
    table.take("n1", Demand(cores=1))  # and nobody ever ends it
    queue = queue_of(queued(1, Demand(cores=2), waited_seconds=LONG), queued(2, Demand(cores=1)))
    result = place(queue, table, NOW)
    assert pairs(result) == []
    assert result.again_at == later(RESERVATION_SECONDS)
    assert pairs(place(queue, table, later(RESERVATION_SECONDS - 1))) == []
    result = place(queue, table, later(RESERVATION_SECONDS))
    assert pairs(result) == [(2, "n1")]
    assert result.again_at == later(RESERVATION_SECONDS + REST_SECONDS)


def test_tasks_whose_reservations_do_not_come_true_leave_others_their_turn() -> None:
    """Only so many may reserve at a time, and none of them holds its place for ever."""
    names = [f"n{index}" for index in range(6)]
    table = NodeTable([node(name, cores=4) for name in names])
    for name in names:
        table.take(name, Demand(cores=1))
    stuck = [
        queued(1 + index, Demand(cores=4, memory_bytes=index), waited_seconds=LONG) for index in range(4)
    ]
    queue = queue_of(*stuck, queued(9, Demand(cores=4, memory_bytes=99), waited_seconds=LONG))
    assert {item.task_id for item in place(queue, table, NOW).reserved} == {1, 2, 3, 4}
    reserved = place(queue, table, later(RESERVATION_SECONDS)).reserved
    assert {item.task_id for item in reserved} == {9}


def test_a_cluster_in_which_nothing_happens_lets_go_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass is made when a reservation ends, though no task and no node changed."""
    moments: list[datetime] = []

    def place_later(queue: object, nodes: object, now: datetime) -> object:
        moments.append(now)
        # The clock of the rule runs ahead of the host's: each pass comes after the last reservation's end.
        shifted = now + timedelta(seconds=LONG + RESERVATION_SECONDS * len(moments))
        result = place(queue, nodes, shifted)  # type: ignore[arg-type]
        return type(result)(result.placed, result.reserved, result.again_at and now)

    monkeypatch.setattr(loop, "place", place_later)

    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1", cores=2)
        await harness.submit(required_cores=1)
        await harness.room.accept_orders("n1")
        await harness.submit(required_cores=2)
        small = await harness.submit(required_cores=1)
        for _ in range(3):
            await harness.room.beat("n1", complete=False)
        shown = (await harness.call("vera", "GET", f"/api/status/{small}")).json()
        assert shown["status"] == "assigning"

    play(tmp_path, scenario)


def test_the_task_that_waits_is_told_that_a_vps_stands_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "place", partial(place, starvation_seconds=-1))

    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1", cores=4)
        made = await harness.call("otto", "POST", "/api/vps/create", json={"required_cores": 1})
        assert made.status_code == 200
        whole = await harness.submit(required_cores=4)
        others = [await harness.submit("otto", required_cores=1) for _ in range(3)]
        for task in others:
            assert (await harness.call("vera", "GET", f"/api/status/{task}")).json()["status"] == "assigning"
        shown = (await harness.call("vera", "GET", f"/api/status/{whole}")).json()
        (reason,) = shown["pending_reasons"]
        assert "VPSs hold room" in reason["reason"]
        assert "stopped" in reason["reason"]

    play(tmp_path, scenario)
