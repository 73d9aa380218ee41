"""How requests end when the host stops: each with an answer that its client knows how to wait out."""

import asyncio
from typing import Any

import pytest

from kohakuriver.host.api.http.open_requests import OpenRequests
from kohakuriver.host.api.http.request_watch import BEGUN_KEY
from support.messages.asgi_call import Answer, call


class Stage:
    """An application whose requests stand still until they are let go on; `begun` begins its answer first."""

    def __init__(self) -> None:
        self.requests = OpenRequests()
        self.go_on = asyncio.Event()
        self.came = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.requests.answer(self._answer, scope, receive, send)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/begun":
            scope[BEGUN_KEY] = True
            await send({"type": "http.response.start", "status": 200, "headers": []})
        self.came.set()
        await self.go_on.wait()
        if scope["path"] != "/begun":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"all"})

    async def open(self, method: str, path: str = "/", kind: str = "http") -> "asyncio.Task[Answer]":
        self.came.clear()
        task = asyncio.create_task(call(self, method, path, kind=kind))
        await self.came.wait()
        return task


def assert_waits(answer: Answer) -> None:
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["connection"] == "close"
    assert len(answer.json["detail"]) > 20


@pytest.mark.anyio
async def test_what_waits_ends_at_once_and_what_comes_later_is_not_begun() -> None:
    stage = Stage()
    held, socket = await stage.open("GET"), await stage.open("GET", kind="websocket")
    stage.requests.end_waiting()
    assert_waits(await held)
    assert_waits(await socket)
    assert_waits(await call(stage, "GET", "/"))


@pytest.mark.anyio
async def test_what_changes_something_gets_its_time() -> None:
    stage = Stage()
    quick = await stage.open("POST")
    stage.requests.end_waiting()
    stage.go_on.set()
    assert (await quick).body == b"all"


@pytest.mark.anyio
async def test_what_takes_too_long_is_told_to_look_whether_it_was_done() -> None:
    stage = Stage()
    slow = await stage.open("POST")
    stage.requests.end_waiting()
    assert not slow.done()
    stage.requests.end_all()
    answer = await slow
    assert_waits(answer)
    assert "look whether" in answer.json["detail"]


@pytest.mark.anyio
async def test_an_answer_that_has_begun_is_cut_and_nothing_is_said_in_it() -> None:
    stage = Stage()
    begun = await stage.open("GET", "/begun")
    stage.requests.end_waiting()
    await asyncio.sleep(0)
    assert not begun.done()
    stage.requests.end_all()
    answer = await begun
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.anyio
async def test_a_request_that_is_cancelled_by_somebody_else_stays_so() -> None:
    stage = Stage()
    held = await stage.open("GET")
    held.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held
