"""Standard input of workloads, by the engine's attach call; see `engines.contract.inputs` for the contract.

The container is made with an input that ends with the first who is attached to it. Bytes that stand in the
connection reach the container also when this process dies. Where the connection ends, a second call that
waits for the container's end tells why: it breaks with the engine, and lasts where the input was closed.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.upgraded import upgraded
from kohakuriver.models.errors import KohakuRiverError, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.docker.workloads.containers import WorkloadContainers
from kohakuriver.runner.engines.docker.workloads.known_containers import KnownContainers

_NEWS_SECONDS = 1.0
_PIECE_BYTES = 65536


class DockerInputs:
    def __init__(
        self, api: DockerApi, workloads: WorkloadContainers, known_containers: KnownContainers
    ) -> None:
        self._api = api
        self._workloads = workloads
        self._known_containers = known_containers

    async def open(self, task_id: TaskId, attempt: int) -> "DockerInput":
        known = await self._known_containers.find(task_id, attempt)
        reader, writer = await upgraded(self._api, f"containers/{known.id}/attach?stream=1&stdin=1")
        return DockerInput(reader, writer, asyncio.create_task(self._workloads.wait_for_next_exit(known.id)))


class DockerInput:
    """See `engines.contract.inputs.InputPipe`. `exiting`: the call that ends with the container, or its
    engine.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, exiting: "asyncio.Task[None]"
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._exiting = exiting

    async def write(self, data: bytes) -> bool:
        if self._reader.at_eof():
            return await self._is_not_wanted()
        try:
            self._writer.write(data)
            if await self._ends_first(self._writer.drain()):
                return await self._is_not_wanted()
        except (OSError, RuntimeError):
            return await self._is_not_wanted()
        return True

    async def end(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write_eof()

    async def settle(self) -> None:
        with contextlib.suppress(OSError):
            await self._ends_first(self._read_out())
        await self._is_not_wanted()

    async def close(self) -> None:
        self._writer.close()
        self._exiting.cancel()
        await asyncio.wait([self._exiting])

    async def _read_out(self) -> None:
        while await self._reader.read(_PIECE_BYTES):
            continue

    async def _ends_first(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do it, unless the container ends before: the engine may leave the connection open then."""
        doing = asyncio.ensure_future(work)
        try:
            await asyncio.wait([doing, self._exiting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            has_ended = not doing.done()
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)
        if not has_ended:
            doing.result()
        return has_ended

    async def _is_not_wanted(self) -> bool:
        """False: the command closed it, or ended. Raises Unavailable if it was the engine that did."""
        done, _ = await asyncio.wait([self._exiting], timeout=_NEWS_SECONDS)
        failure = self._exiting.exception() if done and not self._exiting.cancelled() else None
        if isinstance(failure, KohakuRiverError):
            raise Unavailable("the engine was restarted before it had handed on all of it") from failure
        return False
