"""The list of tasks, of which only what has changed is made anew: it never shows what was."""

from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.api.http import answer_cache
from kohakuriver.host.api.permissions import Call
from kohakuriver.host.api.records import TaskRecord, task_record
from kohakuriver.host.api.tasks import texts as task_texts
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task
from support.cluster.terminal_path import running_task
from support.host.api import ApiHarness, play

NOT_IN_LISTS = ("pending_reasons", "stdin", "script", "progress")


async def listed(harness: ApiHarness, who: str = "otto") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await harness.call(who, "GET", "/api/tasks?limit=1000")).json()
    return found


async def check_list(harness: ApiHarness, who: str = "otto") -> None:
    """The list has what each task says of itself, which nothing keeps."""
    for shown in await listed(harness, who):
        alone = (await harness.call(who, "GET", f"/api/status/{shown['task_id']}")).json()
        for name in NOT_IN_LISTS if shown["status"] != "pending" else (*NOT_IN_LISTS, "error_message"):
            del shown[name], alone[name]
        assert shown == alone


def test_each_change_of_a_task_is_in_the_next_list(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.room.join()
        await check_list(harness)
        task = await running_task(harness, "ursula")
        asks = TaskId(int(await harness.submit("ursula")))
        await check_list(harness)
        for path in (f"/api/approve/{asks}", f"/api/kill/{asks}", f"/api/kill/{task}"):
            assert (await harness.call("otto", "POST", path)).is_success
            await check_list(harness)
        approvers = {shown["task_id"]: shown["approved_by_username"] for shown in await listed(harness)}
        assert approvers[str(asks)] == "otto"

    play(tmp_path, scenario)


def test_what_one_was_shown_is_not_shown_to_another(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        await harness.submit("ursula", env_vars={"KEY": "secret"})
        await harness.submit("ulf", env_vars={"KEY": "secret"})
        for _ in range(2):
            for who in ("otto", "ulf", "vera", "ursula"):
                await harness.submit("otto")  # so that the list itself is not the one of before
                await check_list(harness, who)
                values = [task["env_vars"]["KEY"] for task in await listed(harness, who) if task["env_vars"]]
                expected = {"otto": ["secret"] * 2, "ulf": ["secret", "***"], "ursula": ["***", "secret"]}
                assert values == expected.get(who, ["***"] * 2), who

    play(tmp_path, scenario)


def test_a_text_that_did_not_change_is_not_made_again_and_few_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def counted(task: Task, call: Call) -> TaskRecord:
        made.append(task.id)
        return task_record(task, call)

    monkeypatch.setattr(task_texts, "task_record", counted)
    monkeypatch.setattr(answer_cache, "MOST_TEXTS", 3)

    async def scenario(harness: ApiHarness) -> None:
        tasks = [int(await harness.submit("ursula", name=f"t{number}")) for number in range(3)]
        await listed(harness)
        assert sorted(made) == tasks
        made.clear()
        tasks.append(int(await harness.submit("ursula", name="t3")))
        await check_list(harness)
        assert made == tasks[3:]
        made.clear()
        await harness.call("otto", "POST", f"/api/kill/{tasks[3]}")
        await check_list(harness)
        # The oldest had to go for the fourth.
        assert sorted(made) == [tasks[0], tasks[3]]

    play(tmp_path, scenario)
