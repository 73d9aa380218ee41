"""What Prometheus is told: figures that are right, labels that are bounded."""

import asyncio
import contextlib
from pathlib import Path

from kohakuriver.host.durations import BOUNDS_SECONDS, Durations, LoopLag
from kohakuriver.host.store.sqlite.disk import store_size
from kohakuriver.models.enums import TaskState
from support.host.api import ApiHarness, play


async def scraped(harness: ApiHarness) -> dict[str, float]:
    text = (await harness.call("vera", "GET", "/metrics")).text
    rows = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in rows}


def test_what_waits_and_what_was_taken_in_is_counted(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1", cores=1)
        first, _, _ = [await harness.submit() for _ in range(3)]
        told = await scraped(harness)
        assert told["kohakuriver_queued_tasks"] == 2
        assert told["kohakuriver_open_orders"] == 1
        assert told['kohakuriver_tasks{state="pending"}'] == 2
        assert told['kohakuriver_tasks{state="assigning"}'] == 1
        assert told["kohakuriver_heartbeats_total"] == 1
        await harness.room.accept_orders("n1")
        await harness.room.report(int(first), TaskState.RUNNING, 1)
        await harness.room.report(int(first), TaskState.COMPLETED, 2, exit_code=0)
        told = await scraped(harness)
        assert told["kohakuriver_reports_total"] == 2
        assert told["kohakuriver_queued_tasks"] == 1
        assert 'kohakuriver_tasks{state="completed"}' not in told, "those are the store's, and without end"
        assert told["kohakuriver_control_commit_seconds_count"] == told["kohakuriver_control_commits_total"]
        assert told["kohakuriver_control_turn_seconds_count"] > told["kohakuriver_control_commits_total"]

    play(tmp_path, scenario)


def test_requests_are_counted_by_route_and_never_by_what_was_asked_for(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        for number in range(5):
            await harness.call("vera", "GET", f"/api/status/{10**17 + number}")
            await harness.call("vera", "GET", f"/nowhere/{number}")
            await harness.call("vera", f"ODD{number}", "/api/nodes")
        await harness.call(None, "GET", "/api/nodes")
        told = {name: value for name, value in (await scraped(harness)).items() if "requests_total" in name}
        assert told == {
            'kohakuriver_requests_total{method="GET",route="/api/status/{task_id}",status="404"}': 5,
            'kohakuriver_requests_total{method="GET",route="none",status="404"}': 5,
            'kohakuriver_requests_total{method="other",route="/api/nodes",status="405"}': 5,
            'kohakuriver_requests_total{method="GET",route="/api/nodes",status="401"}': 1,
        }

    play(tmp_path, scenario)


def test_who_follows_is_counted_and_not_forgotten_to_be_taken_off(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await harness.submit()
        events, tails = harness.app.state.parts.events, harness.app.state.parts.output.tails
        async with harness.served() as address:
            host, port = address.split(":")
            writers = []
            for path in ("/api/events", f"/api/tasks/{task}/stdout?follow=true"):
                reader, writer = await asyncio.open_connection(host, int(port))
                credential = harness.credential("vera")["Authorization"]
                request = f"GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: {credential}\r\n\r\n"
                writer.write(request.encode())
                await reader.readuntil(b"\r\n\r\n")
                writers.append(writer)
            async with asyncio.timeout(20):
                while (events.followers, tails.followers) != (1, 1):
                    await asyncio.sleep(0)
                told = await scraped(harness)
                assert told['kohakuriver_followers{stream="events"}'] == 1
                assert told['kohakuriver_followers{stream="output"}'] == 1
                for writer in writers:
                    writer.close()
                while (events.followers, tails.followers) != (0, 0):
                    await asyncio.sleep(0)

    play(tmp_path, scenario)


def test_the_size_of_the_store_and_what_runs_here_are_told(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        parts = harness.app.state.parts
        object.__setattr__(parts, "store_size", lambda: store_size(tmp_path / "host.db"))
        told = await scraped(harness)
        assert told["kohakuriver_store_bytes"] >= 4096
        assert told["kohakuriver_store_free_bytes"] > 0
        assert any(name.startswith("kohakuriver_build_info{") for name in told)
        assert told["process_resident_memory_bytes"] > 0

    play(tmp_path, scenario)


def test_a_disk_that_cannot_be_asked_takes_no_other_figure_along(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        parts = harness.app.state.parts
        object.__setattr__(parts, "store_size", lambda: store_size(tmp_path / "gone" / "host.db"))
        told = await scraped(harness)
        assert "kohakuriver_store_free_bytes" not in told
        assert told["kohakuriver_queued_tasks"] == 0

    play(tmp_path, scenario)


def test_durations_are_counted_under_the_bound_that_holds_them() -> None:
    durations = Durations()
    for seconds in (0.001, 0.0011, 0.3, 99.0):
        durations.add(seconds)
    cumulated = dict(durations.cumulated())
    assert (cumulated[0.001], cumulated[0.0025], cumulated[0.25], cumulated[0.5]) == (1, 2, 2, 3)
    assert cumulated[BOUNDS_SECONDS[-1]] == 3
    assert (durations.count, durations.longest_seconds) == (4, 99.0)
    assert abs(durations.sum_seconds - 99.3021) < 1e-9


def test_a_loop_that_was_held_up_shows_how_long() -> None:
    async def scenario() -> None:
        lag, loop = LoopLag(), asyncio.get_running_loop()
        running = asyncio.create_task(lag.run())
        async with asyncio.timeout(20):
            await asyncio.sleep(0)
            held_until = loop.time() + 0.8
            while loop.time() < held_until:
                pass  # holds the loop up, as a long computation does
            while not lag.lateness.count:
                await asyncio.sleep(0.01)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        assert lag.lateness.longest_seconds >= 0.2

    asyncio.run(scenario())


def test_a_database_that_is_not_there_has_no_size(tmp_path: Path) -> None:
    size = store_size(tmp_path / "none.db")
    assert (size.file_bytes, size.log_bytes) == (0, 0)
