"""Without a terminal, a task that is held up while it starts says so once, and why."""

from types import SimpleNamespace

import msgspec
import pytest

from kohakuriver.cli.tasks.waiting_news import WaitingNews
from kohakuriver.client.records import TaskRecord
from kohakuriver.dockerapi import pulling
from kohakuriver.models.errors import EngineFault
from support.clients.stub_host import task_record

pytestmark = pytest.mark.anyio


async def _progress_of_a_bad_moment(monkeypatch: pytest.MonkeyPatch) -> str:
    """What a node says while a registry does not answer, in its own words."""
    monkeypatch.setattr(pulling, "FIRST_PAUSE_SECONDS", 0.001)
    said: list[str] = []
    answers = iter([EngineFault("lookup nosuch.example: i/o timeout"), None])

    async def pull() -> None:
        if fault := next(answers):
            raise fault

    await pulling.with_patience(pull, "pulling nosuch.example/x", 60, said.append)
    return said[0]


async def test_a_pull_that_does_not_get_on_is_told_though_its_beginning_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(
        "kohakuriver.cli.tasks.waiting_news.time", SimpleNamespace(monotonic=lambda: clock[0])
    )
    news = WaitingNews(None)
    trouble = await _progress_of_a_bad_moment(monkeypatch)
    for progress in ("pulling nosuch.example/x", trouble, "pulling nosuch.example/x", trouble):
        record = task_record(status="assigning", progress=progress)
        for _ in range(3):
            news.look(msgspec.convert(record, TaskRecord))
            clock[0] += 5
    told = capsys.readouterr().err.splitlines()
    assert ["i/o timeout" in line for line in told] == [False, True]
