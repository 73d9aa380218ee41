"""The host's file interface: what goes to the runner, who may, and copies that are whole or seen broken."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from kohakuriver.files.records import MAX_WRITE_REQUEST_BYTES
from kohakuriver.models.errors import Conflict, EngineFault, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.wire.channel import MAX_MESSAGE_BYTES
from kohakuriver.wire.file_frames import ARCHIVE_DONE, ARCHIVE_END
from support.cluster.terminal_path import OWNER, running_task, running_vps
from support.host.api import ApiHarness, play
from support.messages.channels import MemoryChannel, channel_pair

SECONDS = 20


class Stage:
    """A host with one running VPS that `OWNER` may use, and the runner's end of its streams."""

    def __init__(self, harness: ApiHarness, address: str, task_id: TaskId) -> None:
        self.harness = harness
        self.address = address
        self.base = f"/api/fs/{task_id}"
        self.task_id = task_id
        harness.runners.channel, self.runner = channel_pair()

    def client(self, who: str = OWNER) -> httpx2.AsyncClient:
        url = f"http://{self.address}"
        return httpx2.AsyncClient(base_url=url, headers=self.harness.credential(who), timeout=SECONDS)


def on_stage(folder: Path, scenario: Callable[[Stage], Awaitable[None]]) -> None:
    async def with_harness(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        task_id = await running_vps(harness)
        async with harness.served() as address, asyncio.timeout(SECONDS):
            await scenario(Stage(harness, address, task_id))

    play(folder, with_harness)


def test_requests_go_to_the_tasks_runner_as_they_were_meant(tmp_path: Path) -> None:
    odd = "/a b&c=d?e#f%2F/../ü\n"

    async def scenario(stage: Stage) -> None:
        runners, base = stage.harness.runners, stage.base
        answer = b'{"entries":[]}'
        for method, name in (("GET", "list"), ("GET", "read"), ("GET", "stat"), ("DELETE", "delete")):
            runners.answers[method, f"{base}/{name}"] = answer
        for name in ("write", "mkdir", "rename"):
            runners.answers["POST", f"{base}/{name}"] = answer
        asked: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", "list", {"params": {"path": odd, "cursor": "YQ==", "limit": 7, "show_hidden": "false"}}),
            ("GET", "read", {"params": {"path": odd, "encoding": "base64", "limit": 9}}),
            ("GET", "stat", {"params": {"path": odd}}),
            ("DELETE", "delete", {"params": {"path": odd, "recursive": "true"}}),
            ("POST", "write", {"json": {"path": odd, "content": "ü", "create_parents": True}}),
            ("POST", "mkdir", {"json": {"path": odd}}),
            ("POST", "mkdir", {"json": {"path": odd, "parents": False}}),
            ("POST", "rename", {"json": {"source": odd, "destination": "/x", "overwrite": True}}),
        ]
        for method, name, options in asked:
            done = await stage.harness.call(OWNER, method, f"{base}/{name}", **options)
            assert (done.status_code, done.content) == (200, answer), (name, done.text)
        calls = runners.calls
        assert all(node == "n1" for node, *_ in calls)
        queries = [parse_qs(urlsplit(target).query) for _, _, target, _ in calls[:4]]
        assert queries == [
            {"path": [odd], "cursor": ["YQ=="], "limit": ["7"], "show_hidden": ["false"]},
            {"path": [odd], "encoding": ["base64"], "limit": ["9"]},
            {"path": [odd]},
            {"path": [odd], "recursive": ["true"]},
        ]
        assert [json.loads(body) for *_, body in calls[4:]] == [
            {"path": odd, "content": "ü", "encoding": "utf-8", "create_parents": True},
            {"path": odd, "create_parents": True},
            {"path": odd, "create_parents": False},
            {"source": odd, "destination": "/x", "overwrite": True},
        ]

    on_stage(tmp_path, scenario)


def test_what_the_runner_refuses_is_told_as_it_is(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        refusal = Conflict("/x is a FIFO; only regular files are read and written")
        stage.harness.runners.answers["GET", f"{stage.base}/read"] = refusal
        answer = await stage.harness.call(OWNER, "GET", f"{stage.base}/read?path=/x")
        assert (answer.status_code, answer.json()["detail"]) == (409, str(refusal))

    on_stage(tmp_path, scenario)


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "list?path=relative", None),
        ("GET", "list?path=/&limit=1001", None),
        ("GET", "list", None),
        ("GET", "read?path=/x&limit=10485761", None),
        ("GET", "read?path=/x&encoding=latin-1", None),
        ("GET", "stat?path=/" + "x" * 5000, None),
        ("POST", "write", {"path": "x", "content": ""}),
        ("POST", "write", {"path": "/x", "content": 7}),
        ("POST", "rename", {"source": "/x"}),
        ("DELETE", "delete?path=/x&recursive=perhaps", None),
        ("GET", "archive?path=x", None),
    ],
)
def test_a_request_that_does_not_fit_reaches_no_runner(
    tmp_path: Path, method: str, target: str, body: dict[str, Any] | None
) -> None:
    async def scenario(stage: Stage) -> None:
        options = {} if body is None else {"json": body}
        answer = await stage.harness.call(OWNER, method, f"{stage.base}/{target}", **options)
        assert answer.status_code == 422, answer.text
        assert (stage.harness.runners.calls, stage.harness.runners.streams) == ([], [])

    on_stage(tmp_path, scenario)


def test_a_large_file_may_be_written_and_no_larger_one(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.harness.runners.answers["POST", f"{stage.base}/write"] = b"{}"
        body = json.dumps({"path": "/x", "content": "x" * (50 << 20)}).encode()
        answer = await stage.harness.call(OWNER, "POST", f"{stage.base}/write", content=body)
        assert answer.status_code == 200
        assert len(stage.harness.runners.calls[0][3]) >= 50 << 20
        answer = await stage.harness.call(
            OWNER, "POST", f"{stage.base}/write", content=bytes(MAX_WRITE_REQUEST_BYTES + 1)
        )
        assert (answer.status_code, "72 MiB" in answer.text) == (413, True)
        answer = await stage.harness.call(OWNER, "POST", f"{stage.base}/mkdir", content=bytes(9 << 20))
        assert answer.status_code == 413

    on_stage(tmp_path, scenario)


CALLS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("GET", "list?path=/", {}),
    ("GET", "read?path=/x", {}),
    ("GET", "stat?path=/x", {}),
    ("POST", "write", {"json": {"path": "/x", "content": ""}}),
    ("POST", "mkdir", {"json": {"path": "/x"}}),
    ("POST", "rename", {"json": {"source": "/x", "destination": "/y"}}),
    ("DELETE", "delete?path=/x", {}),
    ("GET", "archive?path=/x", {}),
    ("PUT", "archive?path=/x", {"content": b""}),
)


async def refused_everywhere(stage: Stage, task_id: TaskId, who: str | None, status: int) -> None:
    for method, target, options in CALLS:
        answer = await stage.harness.call(who, method, f"/api/fs/{task_id}/{target}", **options)
        assert answer.status_code == status, (method, target, who)
    url = f"ws://{stage.address}/ws/fs/{task_id}/watch?paths=/"
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, additional_headers=stage.harness.credential(who), proxy=None)
    assert refused.value.response.status_code == status
    assert (stage.harness.runners.calls, stage.harness.runners.streams) == ([], [])


def test_files_belong_to_those_who_may_use_the_workload(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        for who, status in (("ulf", 403), ("vera", 403), (None, 401)):
            await refused_everywhere(stage, stage.task_id, who, status)

    on_stage(tmp_path, scenario)


def test_files_of_a_command_task_are_for_operators_since_they_are_reached_as_root(tmp_path: Path) -> None:
    """Its owner would read with root's rights what others keep in the storage that tasks share."""

    async def scenario(stage: Stage) -> None:
        task_id = await running_task(stage.harness)
        await refused_everywhere(stage, task_id, OWNER, 403)
        stage.harness.runners.answers = {("GET", f"/api/fs/{task_id}/stat"): b"{}"}
        answer = await stage.harness.call("otto", "GET", f"/api/fs/{task_id}/stat?path=/x")
        assert answer.status_code == 200

    on_stage(tmp_path, scenario)


def test_an_environments_files_are_those_of_its_container(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        base = "/api/fs/container/base"
        harness.environments.files.root = tmp_path / "root"
        (tmp_path / "root").mkdir()
        body = {"path": "/a/b", "content": "text", "create_parents": True}
        assert (await harness.call("otto", "POST", f"{base}/write", json=body)).status_code == 200
        found = (await harness.call("otto", "GET", f"{base}/read?path=/a/b")).json()
        assert (found["content"], found["size"], found["truncated"]) == ("text", 4, False)
        (entry,) = (await harness.call("otto", "GET", f"{base}/list?path=/a")).json()["entries"]
        assert (entry["path"], entry["type"], entry["mode"]) == ("/a/b", "file", "0644")
        body = {"source": "/a/b", "destination": "/a/c"}
        assert (await harness.call("otto", "POST", f"{base}/rename", json=body)).status_code == 200
        assert (await harness.call("otto", "POST", f"{base}/mkdir", json={"path": "/d"})).status_code == 200
        assert (await harness.call("otto", "DELETE", f"{base}/delete?path=/a")).status_code == 409
        assert (
            await harness.call("otto", "DELETE", f"{base}/delete?path=/a&recursive=true")
        ).status_code == 200
        assert (await harness.call("otto", "GET", f"{base}/stat?path=/a")).status_code == 404
        assert (await harness.call("ursula", "GET", f"{base}/list?path=/")).status_code == 403
        for name, status in (("none", 404), ("-v", 422), ("..", 404)):
            answer = await harness.call("otto", "GET", f"/api/fs/container/{name}/list?path=/")
            assert answer.status_code == status, name

    play(tmp_path, scenario)


def test_a_download_is_passed_on_piece_by_piece_and_no_faster_than_it_is_taken(tmp_path: Path) -> None:
    piece = bytes(MAX_MESSAGE_BYTES)

    async def scenario(stage: Stage) -> None:
        sent = 0

        async def give() -> None:
            nonlocal sent
            for _ in range(400):
                await stage.runner.send(piece)
                sent += 1
            await stage.runner.close()

        giving = asyncio.create_task(give())
        async with stage.client() as client, client.stream("GET", f"{stage.base}/archive?path=/x") as answer:
            assert answer.headers["content-type"] == "application/x-tar"
            target = f"/ws/fs/{stage.task_id}/archive?path=%2Fx&mode=read"
            assert stage.harness.runners.streams == [("n1", target)]
            pieces = answer.aiter_raw()
            received = len(await anext(pieces))
            held = sent
            for _ in range(1000):  # turns of the loop in which it could run ahead
                await asyncio.sleep(0)
            assert sent < 200, "what nobody takes must not be held in memory"
            assert sent - held < 200
            async for data in pieces:
                received += len(data)
        await giving
        assert received == 400 * len(piece)

    on_stage(tmp_path, scenario)


def test_a_download_that_breaks_off_is_no_whole_answer(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        for breaking in (
            lambda runner: runner.close(EngineFault("the engine broke off")),
            _break_off,
        ):
            stage.harness.runners.channel, stage.runner = channel_pair()
            await stage.runner.send(b"first")
            url = f"{stage.base}/archive?path=/x"
            async with stage.client() as client, client.stream("GET", url) as answer:
                assert answer.status_code == 200
                pieces = answer.aiter_raw()
                assert await anext(pieces) == b"first"
                await breaking(stage.runner)
                with pytest.raises(httpx2.RemoteProtocolError):
                    await anext(pieces)

    on_stage(tmp_path, scenario)


async def _break_off(runner: MemoryChannel) -> None:
    runner.break_off()


def test_a_download_of_nothing_is_a_refusal_and_a_client_that_leaves_frees_the_stream(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.runner.close(NotFound("there is no /x"))
        answer = await stage.harness.call(OWNER, "GET", f"{stage.base}/archive?path=/x")
        assert (answer.status_code, answer.json()["detail"]) == (404, "there is no /x")
        stage.harness.runners.channel, stage.runner = channel_pair()
        await stage.runner.send(b"first")
        url = f"{stage.base}/archive?path=/x"
        async with stage.client() as client, client.stream("GET", url) as answer:
            assert await anext(answer.aiter_raw()) == b"first"
        assert await stage.runner.receive() is None

    on_stage(tmp_path, scenario)


async def _taken(runner: MemoryChannel) -> bytes:
    content = b""
    while (message := await runner.receive()) != ARCHIVE_END:
        assert isinstance(message, bytes)
        assert len(message) <= MAX_MESSAGE_BYTES
        content += message
    return content


def test_an_upload_is_answered_once_all_of_it_is_there(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8000

    async def scenario(stage: Stage) -> None:
        async with stage.client() as client:
            sending = asyncio.create_task(client.put(f"{stage.base}/archive?path=/d", content=content))
            assert await _taken(stage.runner) == content
            assert not sending.done()
            await stage.runner.send(ARCHIVE_DONE)
            answer = await sending
        assert (answer.status_code, answer.json()["message"]) == (200, "the copy into /d is whole")
        target = f"/ws/fs/{stage.task_id}/archive?path=%2Fd&mode=write"
        assert stage.harness.runners.streams == [("n1", target)]

    on_stage(tmp_path, scenario)


def test_an_upload_that_the_runner_refuses_or_leaves_is_an_error(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        async with stage.client() as client:
            for error, status in ((NotFound("there is no folder /d"), 404), (None, 502)):
                stage.harness.runners.channel, stage.runner = channel_pair()
                sending = asyncio.create_task(client.put(f"{stage.base}/archive?path=/d", content=b"x"))
                await stage.runner.receive()
                await stage.runner.close(error)
                assert (await sending).status_code == status
            stage.harness.runners.channel, stage.runner = channel_pair()
            sending = asyncio.create_task(client.put(f"{stage.base}/archive?path=/d", content=b"x"))
            await stage.runner.receive()
            stage.runner.break_off()
            assert (await sending).status_code == 503

    on_stage(tmp_path, scenario)


def test_an_upload_that_its_client_breaks_off_is_not_ended_as_if_it_were_whole(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.sleep(0.05)
        raise ZeroDivisionError

    async def scenario(stage: Stage) -> None:
        async with stage.client() as client:
            with pytest.raises(ZeroDivisionError):
                await client.put(f"{stage.base}/archive?path=/d", content=body())
        seen = []
        while (message := await stage.runner.receive()) is not None:
            seen.append(message)
        assert ARCHIVE_END not in seen

    on_stage(tmp_path, scenario)


def test_a_watch_that_names_no_paths_takes_the_usual_ones_that_are_there(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.runner.close(NotFound("there is no /shared"))
        url = f"ws://{stage.address}/ws/fs/{stage.task_id}/watch"
        with pytest.raises(InvalidStatus):
            await connect(url, additional_headers=stage.harness.credential(OWNER), proxy=None)
        asked = [parse_qs(urlsplit(target).query)["paths"][0] for _, target in stage.harness.runners.streams]
        assert [json.loads(paths) for paths in asked] == [["/shared", "/local_temp"], ["/local_temp"]]

    on_stage(tmp_path, scenario)


WATCHING = '{"type":"watching","paths":["/a","/b,c"]}'


def test_a_watch_passes_frames_on_and_answers_pings(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.runner.send(WATCHING)
        url = f"ws://{stage.address}/ws/fs/{stage.task_id}/watch?paths=/a,/b,c"
        async with connect(url, additional_headers=stage.harness.credential(OWNER), proxy=None) as client:
            assert await client.recv() == WATCHING
            ((node, target),) = stage.harness.runners.streams
            assert node == "n1"
            assert json.loads(parse_qs(urlsplit(target).query)["paths"][0]) == ["/a", "/b,c"]
            await stage.runner.send('{"type":"change"}')
            assert await client.recv() == '{"type":"change"}'
            await client.send('{"type":"ping"}')
            assert json.loads(await client.recv()) == {"type": "pong"}
            await client.send("nonsense")
            assert json.loads(await client.recv())["type"] == "error"
            await stage.runner.close(Conflict("the workload has ended"))
            assert json.loads(await client.recv()) == {"type": "error", "message": "the workload has ended"}
            with pytest.raises(ConnectionClosed):
                await client.recv()

    on_stage(tmp_path, scenario)


def test_what_cannot_be_watched_is_refused_before_there_is_a_socket(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.runner.close(NotFound("there is no /x"))
        for query, status in (("?paths=/x", 404), ("?path=/x", 422)):
            url = f"ws://{stage.address}/ws/fs/{stage.task_id}/watch{query}"
            with pytest.raises(InvalidStatus) as refused:
                await connect(url, additional_headers=stage.harness.credential(OWNER), proxy=None)
            assert refused.value.response.status_code == status

    on_stage(tmp_path, scenario)


@pytest.mark.parametrize("kind", ["watch", "download"])
def test_a_lost_token_takes_its_open_streams_with_it(tmp_path: Path, kind: str) -> None:
    async def scenario(stage: Stage) -> None:
        async def revoke() -> None:
            (token,) = (await stage.harness.call(OWNER, "GET", "/api/auth/tokens")).json()
            await stage.harness.call(OWNER, "DELETE", f"/api/auth/tokens/{token['id']}")

        if kind == "watch":
            await stage.runner.send(WATCHING)
            url = f"ws://{stage.address}/ws/fs/{stage.task_id}/watch?paths=/a"
            async with connect(url, additional_headers=stage.harness.credential(OWNER), proxy=None) as client:
                await client.recv()
                await revoke()
                with pytest.raises(ConnectionClosed) as closed:
                    await client.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1008
        else:
            await stage.runner.send(b"first")
            async with stage.client() as http, http.stream("GET", f"{stage.base}/archive?path=/x") as answer:
                pieces = answer.aiter_raw()
                await anext(pieces)
                await revoke()
                with pytest.raises(httpx2.RemoteProtocolError):
                    await anext(pieces)
        assert await stage.runner.receive() is None

    on_stage(tmp_path, scenario)
