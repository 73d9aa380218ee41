"""The stream of events: everything once and in order, encoded once, and ended when it must be."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from kohakuriver.host.api.events import feed as feed_module
from kohakuriver.host.api.events.feed import EventFeed
from kohakuriver.host.api.http.followed_stream import FollowedStream
from kohakuriver.host.control import NumberedEvent
from kohakuriver.host.store.records import StoredEvent
from kohakuriver.models.enums import NodeStatus
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.ids import TaskId
from support.host.api import ApiHarness, play


@dataclass
class Told:
    """One server-sent event as a client reads it."""

    event: str = ""
    id: int | None = None
    data: Any = None


def parse(text: str) -> list[Told]:
    found = []
    for part in text.split("\n\n"):
        told = Told()
        for line in part.splitlines():
            name, _, value = line.partition(": ")
            if name == "event":
                told.event = value
            elif name == "id":
                told.id = int(value)
            elif name == "data":
                told.data = json.loads(value)
        if part:
            found.append(told)
    return found


@contextlib.asynccontextmanager
async def listening(harness: ApiHarness, who: str, query: str = "", **headers: str) -> AsyncIterator[Any]:
    """A client of `GET /api/events`; calling it returns the next event."""
    async with (
        harness.served() as address,
        httpx2.AsyncClient(timeout=20, trust_env=False) as client,
        client.stream(
            "GET", f"http://{address}/api/events{query}", headers={**harness.credential(who), **headers}
        ) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        texts = answer.aiter_text()
        held: list[str] = []

        async def next_event() -> Told:
            while "\n\n" not in "".join(held):
                held.append(await anext(texts))
            first, _, rest = "".join(held).partition("\n\n")
            held[:] = [rest]
            return parse(first)[0]

        yield next_event


def kinds(told: list[Told]) -> list[str]:
    return [one.data["kind"] for one in told if one.event == "task"]


def test_a_task_is_reported_from_its_submission_to_its_placement(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        async with listening(harness, "vera") as next_event:
            ready = await next_event()
            assert ready.event == "ready"
            assert ready.id == ready.data["id"]
            task_id = await harness.submit()
            told = [await next_event() for _ in range(2)]
            assert kinds(told) == ["submitted", "assigning"]
            assert {one.data["task_id"] for one in told} == {task_id}
            assert [one.id for one in told] == [ready.id + 1, ready.id + 2]

    play(tmp_path, scenario)


def test_a_node_that_comes_and_falls_silent_is_reported(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with listening(harness, "vera") as next_event:
            await next_event()
            await harness.room.join("n1")
            seen: list[dict[str, Any]] = []
            while not seen or seen[-1]["status"] != "online":
                told = await next_event()
                assert (told.event, told.id) == ("node", None)
                seen.append(told.data)
            assert seen[-1] == {"hostname": "n1", "status": "online", "closed_reason": ""}

    play(tmp_path, scenario)


def test_with_the_last_id_nothing_is_missed_and_nothing_told_twice(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.submit()
        before = parse((await harness.call("vera", "GET", "/api/events?follow=false")).text)
        ids = [await harness.submit() for _ in range(5)]
        last = str(before[-1].id)
        async with listening(harness, "vera", **{"Last-Event-ID": last}) as next_event:
            assert (await next_event()).id == before[-1].id
            ids.append(await harness.submit())
            told = [await next_event() for _ in range(6)]
        assert [one.data["task_id"] for one in told] == ids
        assert kinds(told) == ["submitted"] * 6

    play(tmp_path, scenario)


def test_who_asks_for_own_tasks_hears_of_no_other(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with listening(harness, "ulf", "?mine=true") as next_event:
            await next_event()
            await harness.submit("ursula")
            own = await harness.submit("ulf")
            told = await next_event()
            assert (told.data["task_id"], told.data["owner"]) == (own, "ulf")

    play(tmp_path, scenario)


def test_followers_are_told_that_the_host_stops(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with listening(harness, "vera") as next_event:
            await next_event()
            harness.app.state.parts.events.close()
            assert (await next_event()).event == "end"

    play(tmp_path, scenario)


class EventLog:
    """A history that tests write; `reads` counts how often it was asked."""

    def __init__(self) -> None:
        self.events: list[NumberedEvent] = []
        self.reads = 0

    def add(self, count: int = 1, owner: str = "alice", detail: str | None = None) -> None:
        for _ in range(count):
            number = len(self.events) + 1
            event = StoredEvent(TaskId(1000 + number), datetime.now(UTC), "submitted", 0, detail)
            self.events.append(NumberedEvent(number, owner, event))

    async def newest_event(self) -> int:
        return len(self.events)

    async def events_after(self, number: int, limit: int) -> list[NumberedEvent]:
        self.reads += 1
        await asyncio.sleep(0)
        return self.events[number : number + limit]


@contextlib.asynccontextmanager
async def running_feed(history: EventLog) -> AsyncIterator[EventFeed]:
    nodes: dict[str, tuple[NodeStatus, str]] = {}
    feed = EventFeed(history, lambda: dict(nodes))
    serving = asyncio.create_task(feed.run())
    try:
        yield feed
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def collect(feed: EventFeed, until: int, after: int | None = None) -> list[bytes]:
    """Follow until the event of that number came; returns the texts as they were given."""
    given: list[bytes] = []
    async with contextlib.aclosing(feed.follow(after, None, contextlib.nullcontext)) as texts:
        async for text in texts:
            given.append(text)
            if f"id: {until}\nevent: task" in text.decode():
                break
    return given


def task_numbers(given: list[bytes]) -> list[int | None]:
    return [told.id for text in given for told in parse(text.decode()) if told.event == "task"]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


def test_500_followers_cost_one_reading_and_one_encoding() -> None:
    async def scenario() -> None:
        history = EventLog()
        history.add(7)
        async with running_feed(history) as feed:
            followers = [asyncio.create_task(collect(feed, until=107)) for _ in range(500)]
            await until(lambda: feed.followers == 500)
            history.add(100)
            reads = history.reads
            feed.wake()
            everything = await asyncio.gather(*followers)
            assert history.reads - reads <= 3
        assert task_numbers(everything[0]) == list(range(8, 108))
        for given in everything:
            # After the greeting all were given the very same texts, not copies of them.
            assert [id(text) for text in given[1:]] == [id(text) for text in everything[0][1:]]

    asyncio.run(scenario())


def test_a_follower_that_catches_up_while_more_comes_gets_each_event_once() -> None:
    async def scenario() -> None:
        history = EventLog()
        history.add(1300)
        async with running_feed(history) as feed:
            first = asyncio.create_task(collect(feed, until=2000))
            await until(lambda: feed.followers == 1)
            late = asyncio.create_task(collect(feed, until=2000, after=10))
            for _ in range(7):
                history.add(100)
                feed.wake()
                await asyncio.sleep(0)
            numbers = [task_numbers(given) for given in (await first, await late)]
        assert numbers == [list(range(1301, 2001)), list(range(11, 2001))]

    asyncio.run(scenario())


def test_a_reader_that_is_too_slow_is_told_so_and_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "KEPT_BLOCKS", 2)

    async def scenario() -> None:
        history = EventLog()
        async with running_feed(history) as feed:
            slow = feed.follow(None, None, contextlib.nullcontext)
            assert parse((await anext(slow)).decode())[0].event == "ready"
            for number in range(1, 6):
                history.add()
                feed.wake()
                await until(lambda number=number: feed.published == number)  # type: ignore[misc]
            last = parse((await anext(slow)).decode())[0]
            assert last.event == "dropped"
            assert "again" in last.data["detail"]
            with pytest.raises(StopAsyncIteration):
                await anext(slow)
            assert (feed.followers, feed.dropped) == (0, 1)

    asyncio.run(scenario())


def test_a_store_that_cannot_be_read_for_a_moment_delays_events_and_loses_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed_module, "UNREADABLE_PAUSE_SECONDS", 0.0)

    class Unreadable(EventLog):
        faults = 3

        async def events_after(self, number: int, limit: int) -> list[NumberedEvent]:
            if self.events and self.faults:
                self.faults -= 1
                raise Unavailable("the disk is unreachable")
            return await super().events_after(number, limit)

    async def scenario() -> None:
        history = Unreadable()
        async with running_feed(history) as feed:
            following = asyncio.create_task(collect(feed, until=2))
            await until(lambda: feed.followers == 1)
            history.add(2)
            feed.wake()
            async with asyncio.timeout(20):
                assert task_numbers(await following) == [1, 2]
        assert history.faults == 0

    asyncio.run(scenario())


def test_who_missed_very_much_is_told_to_read_the_lists_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MAX_MISSED_EVENTS", 10)

    async def scenario() -> None:
        history = EventLog()
        history.add(30)
        async with running_feed(history) as feed:
            stream = feed.follow(5, None, contextlib.nullcontext)
            told = parse((await anext(stream)).decode())
            assert [(one.event, one.id) for one in told] == [("ready", 30), ("gap", None)]
            await stream.aclose()

    asyncio.run(scenario())


def test_a_quiet_stream_beats_with_the_place_it_has_come_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "BEAT_SECONDS", 0.05)

    async def scenario() -> None:
        history = EventLog()
        async with running_feed(history) as feed:
            stream = feed.follow(None, lambda owner: owner == "bob", contextlib.nullcontext)
            assert parse((await anext(stream)).decode())[0].event == "ready"
            assert await anext(stream) == b": beat\n\n"
            history.add(3, owner="alice")
            feed.wake()
            beats = b""
            while b"id: 3\n" not in beats:
                beats = await anext(stream)
            assert b"alice" not in beats
            await stream.aclose()

    asyncio.run(scenario())


def test_a_client_that_takes_nothing_is_let_go() -> None:
    async def scenario() -> None:
        history = EventLog()
        async with running_feed(history) as feed:

            async def receive() -> dict[str, Any]:
                await asyncio.Event().wait()
                return {}

            async def send(message: Any) -> None:
                if message["type"] == "http.response.body":
                    await asyncio.Event().wait()

            async with asyncio.timeout(20):
                texts = feed.follow(None, None, contextlib.nullcontext)
                await FollowedStream(texts, 200, {}, "text/event-stream", 0.05)({}, receive, send)
            assert feed.followers == 0

    asyncio.run(scenario())
