"""Output of tasks: every byte once, by range, by lines and to the end; never through a link."""

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx2
import pytest

from kohakuriver.host.api.tasks import output as output_module
from kohakuriver.host.api.tasks.log_tail import CHUNK_BYTES
from kohakuriver.host.api.tasks.output import OutputReader
from kohakuriver.models.enums import Stream, TaskState
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.output.places import TIMES_FILE, OutputIndex, OutputPlace
from kohakuriver.models.tasks import Task
from support.host.api import ApiHarness, StandInLogs, play
from support.host.followed_output import ID, joined, running_task, write


async def read_all(folder: Path, task: Task) -> bytes:
    reader = OutputReader(folder, StandInLogs())
    try:
        source = reader.source_of(task, Stream.STDOUT)
        return await joined(reader.read(source, 0, await source.size()))
    finally:
        reader.close()


def test_a_file_in_shared_storage_is_read_whole(tmp_path: Path) -> None:
    data = os.urandom(3 * CHUNK_BYTES + 17)
    write(tmp_path, data)
    assert asyncio.run(read_all(tmp_path, running_task(tmp_path))) == data


def test_a_file_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert asyncio.run(read_all(tmp_path, running_task(tmp_path))) == b""


def test_a_path_in_the_record_that_is_not_the_hosts_own_is_never_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for path in (str(secret), str(tmp_path / "logs" / str(ID) / ".." / ".." / "secret")):
        write(tmp_path, b"")
        assert asyncio.run(read_all(tmp_path, running_task(tmp_path, stdout_path=path))) == b""


def test_a_link_in_the_place_of_the_file_or_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "stdout.log").write_text("secret")
    path = write(tmp_path, b"")
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere" / "stdout.log")
    with pytest.raises(Unavailable):
        asyncio.run(read_all(tmp_path, running_task(tmp_path)))
    path.unlink()
    path.parent.rmdir()
    path.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable):
        asyncio.run(read_all(tmp_path, running_task(tmp_path)))
    path.parent.unlink()
    path.parents[1].rmdir()
    path.parents[1].symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / path.parent.name).symlink_to(".")
    with pytest.raises(Unavailable):
        asyncio.run(read_all(tmp_path, running_task(tmp_path)))


def test_a_fifo_in_the_place_of_the_file_is_refused_without_waiting(tmp_path: Path) -> None:
    path = write(tmp_path, b"")
    path.unlink()
    os.mkfifo(path)

    async def scenario() -> None:
        async with asyncio.timeout(5):
            await read_all(tmp_path, running_task(tmp_path))

    with pytest.raises(Unavailable, match="regular"):
        asyncio.run(scenario())


@pytest.mark.parametrize(
    ("data", "lines", "expected"),
    [
        (b"", 3, b""),
        (b"a\nb\nc\n", 0, b""),
        (b"a\nb\nc\n", 1, b"c\n"),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\nc\n", 99, b"a\nb\nc\n"),
        (b"\n\n\n", 2, b"\n\n"),
        (b"no newline", 1, b"no newline"),
        (b"x" * (2 * CHUNK_BYTES) + b"\nlast\n", 2, b"x" * (2 * CHUNK_BYTES) + b"\nlast\n"),
        (b"first\n" + b"y" * (CHUNK_BYTES - 1) + b"\n", 1, b"y" * (CHUNK_BYTES - 1) + b"\n"),
    ],
)
def test_the_last_lines_are_found_from_the_end(
    tmp_path: Path, data: bytes, lines: int, expected: bytes
) -> None:
    write(tmp_path, data)

    async def scenario() -> bytes:
        reader = OutputReader(tmp_path, StandInLogs())
        source = reader.source_of(running_task(tmp_path), Stream.STDOUT)
        begin = await reader.tail_offset(source, lines)
        found = await joined(reader.read(source, begin, await source.size()))
        reader.close()
        return found

    assert asyncio.run(scenario()) == expected


def test_a_tail_reads_no_further_back_than_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_module, "MAX_TAIL_BYTES", 1000)
    write(tmp_path, b"z" * 5000)

    async def scenario() -> int:
        reader = OutputReader(tmp_path, StandInLogs())
        begin = await reader.tail_offset(reader.source_of(running_task(tmp_path), Stream.STDOUT), 5)
        reader.close()
        return begin

    assert asyncio.run(scenario()) == 4000


def test_ranges_and_lines_over_http(tmp_path: Path) -> None:
    data = b"alpha\nbeta\ngamma\n"

    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        task = await harness.submit(targets=["n1"])
        harness.logs.streams[int(task), Stream.STDERR] = data
        path = f"/api/tasks/{task}/stderr"

        async def get(query: str = "", **headers: str) -> httpx2.Response:
            return await harness.call("vera", "GET", path + query, headers=headers)

        whole = await get()
        assert (whole.status_code, whole.content) == (200, data)
        assert whole.headers["content-type"].startswith("text/plain")
        assert whole.headers["x-content-type-options"] == "nosniff"
        assert (await get("?lines=1")).content == b"gamma\n"
        assert (await get("?lines=1")).headers["kohakuriver-offset"] == str(data.index(b"gamma"))
        for wanted, begin, end in (("6-9", 6, 10), ("11-", 11, 17), ("-6", 11, 17), ("0-999", 0, 17)):
            part = await get(Range=f"bytes={wanted}")
            assert (part.status_code, part.content) == (206, data[begin:end])
            assert part.headers["content-range"] == f"bytes {begin}-{end - 1}/{len(data)}"
        beyond = await get(Range="bytes=17-")
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */17")
        for ignored in ("bytes=5-2", "bytes=0-1,3-4", "lines=0-1", "bytes=-", "bytes=x-"):
            assert (await get(Range=ignored)).content == data
        for query in ("?lines=-1", "?lines=1000001", "?lines=x", "?follow=maybe"):
            assert (await get(query)).status_code == 422
        harness.logs.unreachable = True
        assert (await get()).status_code == 503

    play(tmp_path, scenario)


def test_times_lie_beside_the_streams_and_are_read_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path, b"words")
    (path.parent / TIMES_FILE).write_bytes(b"\x01abc")

    async def scenario() -> bytes:
        reader = OutputReader(tmp_path, StandInLogs())
        source = reader.source_of(running_task(tmp_path), OutputIndex.TIMES)
        found = await joined(reader.read(source, 1, await source.size()))
        reader.close()
        return found

    assert asyncio.run(scenario()) == b"abc"


def test_times_are_followed_by_range_until_the_task_has_ended(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        task = await harness.submit(targets=["n1"])
        path, key = f"/api/tasks/{task}/times", (int(task), OutputIndex.TIMES)
        assert (await harness.call("vera", "GET", path)).content == b""
        harness.logs.streams[key] = b"\x01abc"
        whole = await harness.call("vera", "GET", path)
        assert (whole.content, whole.headers["content-type"]) == (b"\x01abc", "application/octet-stream")
        assert (await harness.call("vera", "GET", path, headers={"Range": "bytes=9-"})).status_code == 416
        headers = {**harness.credential("otto"), "Range": "bytes=2-"}
        async with harness.served() as address, httpx2.AsyncClient(timeout=20) as client:
            url = f"http://{address}{path}?follow=true"
            async with client.stream("GET", url, headers=headers) as answer:
                pieces = answer.aiter_raw()
                assert await anext(pieces) == b"bc"
                harness.logs.streams[key] += b"more"
                assert await anext(pieces) == b"more"
                await harness.room.accept_orders("n1")
                await harness.room.report(int(task), TaskState.RUNNING, 1)
                # How much it became is not on record, unlike with the streams.
                ended: dict[str, Any] = {"exit_code": 0, "stdout_bytes": 1000, "stderr_bytes": 2000}
                harness.logs.streams[key] += b"end"
                await harness.room.report(int(task), TaskState.COMPLETED, 2, **ended)
                assert b"".join([piece async for piece in pieces]) == b"end"

    play(tmp_path, scenario)


def test_a_followed_stream_arrives_while_the_task_runs(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        task = await harness.submit(targets=["n1"])
        key = int(task), Stream.STDOUT
        harness.logs.streams[key] = b"0123456789"
        headers = {**harness.credential("otto"), "Range": "bytes=4-"}
        async with harness.served() as address, httpx2.AsyncClient(timeout=20) as client:
            url = f"http://{address}/api/tasks/{task}/stdout?follow=true"
            async with client.stream("GET", url, headers=headers) as answer:
                assert answer.status_code == 206
                pieces = answer.aiter_raw()
                assert await anext(pieces) == b"456789"
                harness.logs.streams[key] += b"more"
                assert await anext(pieces) == b"more"
                await harness.room.accept_orders("n1")
                await harness.room.report(int(task), TaskState.RUNNING, 1)
                ended: dict[str, Any] = {"exit_code": 0, "stdout_bytes": 17, "stderr_bytes": 0}
                await harness.room.report(int(task), TaskState.COMPLETED, 2, **ended)
                harness.logs.streams[key] += b"end"
                assert b"".join([piece async for piece in pieces]) == b"end"

    play(tmp_path, scenario)


def test_a_reader_that_does_not_read_holds_the_stream_back(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        task = await harness.submit(targets=["n1"])
        harness.logs.streams[int(task), Stream.STDOUT] = bytes(64 << 20)
        asked = 0
        fetch = harness.logs.fetch_log

        async def counted(node: str, place: OutputPlace, offset: int, length: int) -> tuple[bytes, int]:
            nonlocal asked
            asked += 1
            return await fetch(node, place, offset, length)

        harness.logs.fetch_log = counted  # type: ignore[method-assign]
        async with harness.served() as address:
            host, port = address.split(":")
            reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 16)
            credential = harness.credential("otto")["Authorization"]
            request = f"GET /api/tasks/{task}/stdout HTTP/1.1\r\nHost: h\r\nAuthorization: {credential}"
            writer.write(f"{request}\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            before = -1
            while before != asked:
                before = asked
                await asyncio.sleep(0.3)
            # 64 MiB are 256 windows; sockets take a few MiB.
            assert 0 < asked < 100
            writer.close()

    play(tmp_path, scenario)
