"""Settings that a runner and its host must have alike, compared when it registers."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kohakuriver.cli.nodes.commands import node_facts
from kohakuriver.client.records import NodeRecord
from kohakuriver.config import HostConfig, RunnerConfig, values_that_must_match
from kohakuriver.host.api.records import node_record
from kohakuriver.wire.messages import decode, encode
from support.host.control import CLUSTER_ID, Room, control_room

HOST = values_that_must_match(HostConfig(overlay_enabled=True))
RUNNER = values_that_must_match(RunnerConfig(overlay_enabled=True))
OFF = {"OVERLAY_ENABLED": False}
ELSEWHERE = "its SHARED_DIR is '/elsewhere', and that of the host is '/shared'; set both alike"
PLAN, OTHER_PLAN = "10.128.0.0/12/6/14", "10.0.0.0/8/8/16"
UNTIL = "until both are set alike it gets no work that needs the overlay"


def shown(room: Room) -> NodeRecord:
    """The only node, as a client has it from the API."""
    (snapshot,) = room.control.nodes.snapshots()
    return decode(encode(node_record(snapshot)), NodeRecord)


def test_both_programs_have_what_must_match_with_the_same_defaults() -> None:
    assert values_that_must_match(HostConfig()) == values_that_must_match(RunnerConfig())


@pytest.mark.parametrize(
    ("theirs", "ours", "notices"),
    [
        (RUNNER, HOST, []),
        (RUNNER | OFF, HOST | OFF | {"OVERLAY_MTU": 9000}, []),
        (RUNNER | OFF, HOST, [f"its OVERLAY_ENABLED is False, and that of the host is True; {UNTIL}"]),
        (RUNNER, HOST | OFF, [f"its OVERLAY_ENABLED is True, and that of the host is False; {UNTIL}"]),
        (
            RUNNER | {"OVERLAY_MTU": 1400, "OVERLAY_SUBNET": OTHER_PLAN},
            HOST,
            [
                f"its OVERLAY_SUBNET is {OTHER_PLAN!r}, and that of the host is {PLAN!r}; {UNTIL}",
                f"its OVERLAY_MTU is 1400, and that of the host is 1450; {UNTIL}",
            ],
        ),
        ({"OVERLAY_ENABLED": True}, HOST, []),  # a runner of a version that says no more
        ({}, HOST, []),
        ({"OVERLAY_ENABLED": 1}, HOST, [f"its OVERLAY_ENABLED is 1, and that of the host is True; {UNTIL}"]),
        (RUNNER | {"ADDED_LATER": 1, "OVERLAY_ADDED_LATER": 1}, HOST, []),
    ],
)
def test_an_overlay_that_differs_is_named_with_both_values_and_closes_no_node(
    tmp_path: Path, theirs: dict[str, object], ours: dict[str, object], notices: list[str]
) -> None:
    async def scenario() -> None:
        async with control_room(tmp_path, must_match=ours) as room:
            await room.join()
            answer = await room.register(settings=theirs)
            await room.beat()
            assert (answer.faults, answer.notices) == ([], notices)
            record = shown(room)
            assert (record.notices, record.faults, record.closed_reason) == (notices, [], "")
            lines = node_facts(record, datetime.now(UTC)).lines
            assert [text for name, text in lines if name == "Notice"] == notices
            task = await room.submit()
            assert await room.accept_orders() == [task]

    asyncio.run(scenario())


def test_a_difference_goes_when_the_runner_comes_back_with_another_setting(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_room(tmp_path, must_match=HOST) as room:
            await room.join(settings=RUNNER | OFF)
            assert len(shown(room).notices or ()) == 1
            await room.register(settings=RUNNER)
            await room.beat()
            assert not shown(room).notices

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("theirs", "marker", "told"),
    [
        ("/elsewhere", CLUSTER_ID, [ELSEWHERE]),
        ("/shared/", CLUSTER_ID, []),
        ("/elsewhere", "another", []),
        ("/elsewhere", None, []),
        (5, CLUSTER_ID, []),
    ],
)
def test_our_shared_storage_at_another_path_closes_the_node(
    tmp_path: Path, theirs: object, marker: str | None, told: list[str]
) -> None:
    async def scenario() -> None:
        async with control_room(tmp_path, must_match=HOST | {"SHARED_DIR": "/shared"}) as room:
            await room.join(settings=RUNNER | {"SHARED_DIR": theirs}, shared_cluster_id=marker)
            record = shown(room)
            assert list(record.faults or ()) == told
            assert record.closed_reason == (f"has a fault: {told[0]}" if told else "")
            assert not record.notices

    asyncio.run(scenario())


def test_a_settings_text_from_a_node_is_short_and_does_nothing_where_it_is_shown(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_room(tmp_path, must_match=HOST) as room:
            await room.join()
            hostile = "\x1b[2J\u202e\n" + "x" * 900
            (notice,) = (await room.register(settings=RUNNER | {"OVERLAY_SUBNET": hostile})).notices
            assert r"\x1b[2J\u202e\n" in notice
            assert notice.isprintable()
            assert len(notice) < 400
            (notice,) = (await room.register(settings=RUNNER | {"OVERLAY_MTU": ["x" * 1000] * 100})).notices
            assert len(notice) < 400

    asyncio.run(scenario())


def test_differences_are_known_still_after_the_state_was_read_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with control_room(tmp_path, must_match=HOST) as room:
            await room.join(settings=RUNNER | OFF)
            before = shown(room).notices

            def fail(_turn: object) -> None:
                raise RecursionError("nobody foresaw that")

            with pytest.raises(Exception, match="host"):
                await room.control.loop.call(fail)
            assert before
            assert shown(room).notices == before

    asyncio.run(scenario())
