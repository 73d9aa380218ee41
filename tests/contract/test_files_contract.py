"""The rules of `engines.contract.files`, over the fake and the real engine alike."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import pytest

from kohakuriver.files.requests import StatFile
from kohakuriver.models.errors import Conflict, KohakuRiverError, NotFound
from kohakuriver.models.ids import TaskId
from support.engines import Lab, fresh_task_id, ignore

pytestmark = pytest.mark.anyio


def calls(lab: Lab) -> list[Callable[[TaskId], Awaitable[object]]]:
    files = lab.engine.files

    async def read(task_id: TaskId) -> None:
        async for _ in files.read_archive(task_id, "/missing"):
            continue

    async def write(task_id: TaskId) -> None:
        await files.write_archive(task_id, "/missing", _nothing())

    async def watch(task_id: TaskId) -> None:
        async with aclosing(files.watch(task_id, [b"/missing"])) as news:
            await anext(news)

    async def stat(task_id: TaskId) -> None:
        await files.perform(task_id, StatFile("/missing"))

    return [read, write, watch, stat]


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


async def _refused(call: Callable[[TaskId], Awaitable[object]], task_id: TaskId) -> type[KohakuRiverError]:
    with pytest.raises(KohakuRiverError) as refused:
        await call(task_id)
    return refused.type


async def test_a_workload_that_is_not_there_is_not_found(lab: Lab) -> None:
    for call in calls(lab):
        assert await _refused(call, fresh_task_id()) is NotFound


async def test_one_that_does_not_run_is_in_conflict(lab: Lab) -> None:
    spec = lab.spec(*lab.argv("true"))
    await lab.engine.create(spec, ignore)
    try:
        for call in calls(lab):
            assert await _refused(call, spec.task_id) is Conflict
    finally:
        await lab.engine.remove(spec.task_id, 1)


async def test_a_path_that_is_not_there_is_not_found_in_one_that_runs_or_is_paused(lab: Lab) -> None:
    spec = lab.spec(*lab.argv("sleep", "60"))
    await lab.engine.create(spec, ignore)
    try:
        await lab.engine.start(spec.task_id, 1)
        for pause in (False, True):
            if pause:
                await lab.engine.pause(spec.task_id, 1)
            for call in calls(lab):
                assert await _refused(call, spec.task_id) is NotFound
    finally:
        await lab.engine.stop(spec.task_id, 1, 0)
        await lab.engine.remove(spec.task_id, 1)
