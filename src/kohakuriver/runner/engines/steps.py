"""Making a workload as an ordered list of steps, which are undone if one fails or the making is cut off.

Rules: what was begun is undone, since a call that was cut off may have had its effect; so an undo takes back
as much as there is, also nothing. The last step is undone first. An undo that fails is reported, and keeps
none of the others from being undone. Nobody undoes the steps of a process that dies: each finds what an
earlier try left, and goes on with it or begins anew.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.models.errors import KohakuRiverError
from kohakuriver.models.ids import TaskId

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Step:
    """`point` is passed when it is done."""

    name: str
    do: Callable[[], Awaitable[None]]
    undo: Callable[[], Awaitable[None]]
    point: CrashPoint


async def take_steps(steps: Sequence[Step], task_id: TaskId) -> None:
    """Take all of them, or none: raises what a step raised after those that were begun are undone.

    Who is cancelled while they are being undone leaves at once, and they are undone all the same.
    """
    begun = AsyncExitStack()
    try:
        for step in steps:
            begun.push_async_callback(_undo, step, task_id)
            await step.do()
            reach(step.point)
    except BaseException:
        await asyncio.shield(begun.aclose())
        raise


async def _undo(step: Step, task_id: TaskId) -> None:
    try:
        await step.undo()
    except (KohakuRiverError, OSError) as error:
        _log.warning("step_not_undone", step=step.name, task_id=str(task_id), error=str(error))
