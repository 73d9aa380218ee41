"""Steps with undo: all of them, or nothing is left of them, wherever they fail or are cut off."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kohakuriver.crash_points import CrashPoint
from kohakuriver.models.errors import EngineFault
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.steps import Step, take_steps

pytestmark = pytest.mark.anyio
NAMES = ("address", "disk", "machine")
TASK = TaskId(7)


class Harness:
    """What steps bring in, one thing each; `at` a step something happens, before or after its effect."""

    def __init__(self, at: str = "", happens: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        self.there: list[str] = []
        self.undone: list[str] = []
        self._at = at
        self._happens = happens
        self.is_late = True

    def steps(self) -> list[Step]:
        return [self._step(name) for name in NAMES]

    def _step(self, name: str) -> Step:
        async def do() -> None:
            if not self.is_late:
                await self._happen(name)
            self.there.append(name)
            await self._happen(name)

        async def undo() -> None:
            await asyncio.sleep(0)
            self.undone.append(name)
            if name in self.there:
                self.there.remove(name)

        return Step(name, do, undo, CrashPoint.RUNNER_WORKLOAD_CREATED)

    async def _happen(self, name: str) -> None:
        if name == self._at and self._happens is not None:
            await self._happens()


async def refused() -> None:
    raise EngineFault("no")


def begun_up_to(name: str) -> list[str]:
    return list(reversed(NAMES[: NAMES.index(name) + 1]))


async def test_what_was_taken_stays_and_each_step_passes_its_point() -> None:
    passed: list[object] = []
    is_over = False

    def listen(event: str, arguments: tuple[object, ...]) -> None:
        if event == "kohakuriver.crash_point" and not is_over:
            passed.append((arguments[0], tuple(harness.there)))

    harness = Harness()
    sys.addaudithook(listen)
    await take_steps(harness.steps(), TASK)
    is_over = True
    assert harness.there == list(NAMES)
    assert harness.undone == []
    points = [CrashPoint.RUNNER_WORKLOAD_CREATED] * 3
    assert passed == list(zip(points, [NAMES[:1], NAMES[:2], NAMES], strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_late", [False, True])
async def test_a_step_that_fails_is_undone_with_those_before_it_the_last_first(
    name: str, is_late: bool
) -> None:
    harness = Harness(name, refused)
    harness.is_late = is_late
    with pytest.raises(EngineFault, match="no"):
        await take_steps(harness.steps(), TASK)
    assert harness.there == []
    assert harness.undone == begun_up_to(name)


@pytest.mark.parametrize("name", NAMES)
async def test_a_making_that_is_cut_off_leaves_nothing(name: str) -> None:
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    harness = Harness(name, hang)
    making = asyncio.create_task(take_steps(harness.steps(), TASK))
    await reached.wait()
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert harness.there == []
    assert harness.undone == begun_up_to(name)


async def test_a_second_cancellation_keeps_nothing_from_being_undone() -> None:
    harness = Harness("machine", refused)
    making = asyncio.create_task(take_steps(harness.steps(), TASK))
    while not harness.there:
        await asyncio.sleep(0)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    while harness.there:
        await asyncio.sleep(0)
    assert harness.undone == begun_up_to("machine")


@pytest.mark.parametrize("error", [EngineFault("away"), OSError("full"), RuntimeError("a mistake")])
async def test_an_undo_that_fails_keeps_no_other_from_being_done(error: Exception) -> None:
    harness = Harness("machine", refused)

    async def broken() -> None:
        raise error

    steps = harness.steps()
    steps[1] = Step("disk", steps[1].do, broken, steps[1].point)
    with pytest.raises((EngineFault, RuntimeError)) as raised:
        await take_steps(steps, TASK)
    assert harness.undone == ["machine", "address"]
    assert isinstance(error, RuntimeError) or str(raised.value) == "no"
