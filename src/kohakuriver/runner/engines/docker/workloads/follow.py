"""Following a workload to its end: its output is copied while it runs, and its end is judged."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from kohakuriver.runner.engines.contract.engine import ExitResult
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.docker.output.copy import OutputCopy, OutputPaths
from kohakuriver.runner.engines.docker.sandboxes.containers import SandboxContainers
from kohakuriver.runner.engines.docker.workloads.containers import Inspected, WorkloadContainers
from kohakuriver.runner.engines.docker.workloads.end import fell_with_engine, until_exit
from kohakuriver.runner.engines.docker.workloads.known_containers import KnownContainer

_FELL = "the Docker engine or the node was restarted, and that ended it"
_UNKNOWN_END = "the Docker engine was restarted and does not know how it ended"
_UNKNOWN_STATUS = 255  # what an engine says of a container that ended without it, if nobody kept the status
_T = TypeVar("_T")


class WorkloadFollower:
    """One per engine, for all its workloads; `threads` are for copies to storage that may hang."""

    def __init__(
        self, workloads: WorkloadContainers, sandboxes: SandboxContainers, threads: Executor
    ) -> None:
        self._workloads = workloads
        self._sandboxes = sandboxes
        self._threads = threads
        self._copies: set[OutputCopy] = set()

    def faults(self) -> list[str]:
        waiting = [copy.fault for copy in self._copies if copy.fault]
        return [f"{waiting[0]} (output of {len(waiting)} tasks waits)"] if waiting else []

    async def follow(self, spec: WorkloadSpec, known: KnownContainer, journal: Path) -> ExitResult:
        """Return when it has ended and all its output is in its files; see `Engine.wait`."""
        paths = OutputPaths(spec.stdout_path, spec.stderr_path, spec.output_starts)
        copy = OutputCopy(journal, paths, self._threads)
        ended = asyncio.Event()
        hold = partial(self._in_thread, known.pipes.hold)
        self._copies.add(copy)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(copy.follow(ended))
                facts = await until_exit(self._workloads, known.id, hold)
                ended.set()
            rest = await self._in_thread(known.pipes.rest)
            stdout_bytes, stderr_bytes = await copy.finish(rest, facts.exit_code)
            not_executed = copy.not_executed(facts.command)
        except BaseExceptionGroup as failed:
            raise _first_of(failed) from failed
        finally:
            copy.close()
            self._copies.discard(copy)
            known.pipes.close()
        loss = await self._loss(known, facts)
        finished = facts.finished_at or datetime.now(UTC)
        return ExitResult(
            exit_code=facts.exit_code,
            oom_killed=facts.oom_killed,
            started_at=facts.started_at or finished,
            finished_at=finished,
            stdout_bytes=stdout_bytes,
            stderr_bytes=stderr_bytes,
            error=loss or not_executed or facts.error or None,
            lost_to_system=loss is not None,
        )

    async def _loss(self, known: KnownContainer, facts: Inspected) -> str | None:
        """Say so if the workload's end, or what is known of it, is the engine's doing."""
        if await fell_with_engine(self._sandboxes, known.sandbox, facts):
            return _FELL
        if facts.exit_code != _UNKNOWN_STATUS:
            return None
        ended = facts.finished_at
        was_seen = ended is not None and await self._workloads.end_was_seen(facts.id, ended)
        return None if was_seen else _UNKNOWN_END

    async def _in_thread(self, work: Callable[..., _T], *args: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)


def _first_of(failed: BaseExceptionGroup) -> BaseException:
    """The failure that ended the others."""
    first = failed.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first
