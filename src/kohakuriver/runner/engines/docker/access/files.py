"""Files in workloads' containers: one by one through the first process, or whole trees from the engine.

Trees are tar streams, never held in memory. The engine resolves paths in the container's own root, and
unpacks in a namespace that ends there.
"""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any

from kohakuriver.descriptors import until_readable
from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.files.requests import FileRequest
from kohakuriver.files.service import FileService
from kohakuriver.files.system.first_process import FirstProcess
from kohakuriver.files.tree_watch import Lost, News, TreeWatch, open_watch
from kohakuriver.models.errors import Conflict, EngineFault, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.docker.access.sparse_upload import SparseUpload
from kohakuriver.runner.engines.docker.workloads.containers import Inspected, WorkloadContainers
from kohakuriver.streams.pumping import first_to_end
from kohakuriver.streams.tar_end import TarEnd

_PIECE_BYTES = 256 << 10
_PATH_STAT = "X-Docker-Container-Path-Stat"
_GO_FOLDER, _GO_LINK = 1 << 31, 1 << 27
"""Bits of a mode as Go has them."""
_ALIVE = (WorkloadState.RUNNING, WorkloadState.PAUSED)


class ContainerFiles:
    """See `engines.contract.files`; close it once.

    `bring_mounts` has the sources of mounts in place, since the engine mounts them anew for each archive. It
    blocks.
    """

    def __init__(
        self, api: DockerApi, workloads: WorkloadContainers, bring_mounts: Callable[[], None]
    ) -> None:
        self._api = api
        self._bring_mounts = bring_mounts
        self._workloads = workloads
        self._service: FileService[TaskId] = FileService(self._first_pid)

    def close(self) -> None:
        self._service.close()

    async def perform(self, task_id: TaskId, request: FileRequest) -> Any:
        return await self._service.perform(task_id, request.run)

    async def watch(self, task_id: TaskId, paths: Sequence[bytes]) -> AsyncGenerator[Sequence[News], None]:
        process = await self._service.hold(task_id)
        try:
            watch, lost = await self._open_watch(process, paths)
            try:
                yield lost
                while True:
                    await first_to_end(until_readable(watch.descriptor), _until_end(process))
                    yield await asyncio.wrap_future(self._service.submit(watch.take))
            finally:
                self._service.submit(watch.close)
        finally:
            process.close()

    async def _open_watch(
        self, process: FirstProcess, paths: Sequence[bytes]
    ) -> tuple[TreeWatch, list[Lost]]:
        job = self._service.submit(open_watch, process, paths)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            job.add_done_callback(_close_late)
            raise

    async def read_archive(self, task_id: TaskId, path: str) -> AsyncGenerator[bytes, None]:
        container = await self._living(task_id)
        await asyncio.to_thread(self._bring_mounts)
        end = TarEnd()
        try:
            async with self._api.stream(
                "GET",
                f"containers/{container.id}/archive",
                params={"path": path},
                headers={"Accept-Encoding": "identity"},  # or the engine spends its time compressing
            ) as response:
                async for piece in _large_pieces(response.content.iter_any()):
                    end.take(piece)
                    yield piece
        except NotFound as error:
            raise NotFound(f"there is no {path} in task {task_id}") from error
        if not end.is_whole:
            raise EngineFault(f"the engine broke off in the middle of {path}; see its log, and try again")

    async def write_archive(self, task_id: TaskId, path: str, content: AsyncIterator[bytes]) -> None:
        container = await self._living(task_id)
        await asyncio.to_thread(self._bring_mounts)
        await self._refuse_all_but_folders(container, task_id, path)

        async def put(part: AsyncIterator[bytes]) -> None:
            await self._put(container.id, path, part)

        def hold() -> Awaitable[FirstProcess]:
            return self._service.hold(task_id)

        await SparseUpload(content, path, put, hold).run()

    async def _put(self, container_id: str, path: str, content: AsyncIterator[bytes]) -> None:
        kept = _KeptFailure(content)
        params = {"path": path, "noOverwriteDirNonDir": "1"}
        headers = {"Content-Type": "application/x-tar"}
        try:
            async with self._api.stream(
                "PUT",
                f"containers/{container_id}/archive",
                params=params,
                data=aiter(kept),
                headers=headers,
            ) as response:
                await response.read()
        except Exception:
            if kept.failure is not None:
                raise kept.failure from None
            raise

    async def _refuse_all_but_folders(self, container: Inspected, task_id: TaskId, path: str) -> None:
        """Ask first: an engine that refuses a stream does not say so before it has read some of it."""
        try:
            async with self._api.stream(
                "HEAD", f"containers/{container.id}/archive", params={"path": path}
            ) as response:
                told = response.headers.get(_PATH_STAT, "")
        except NotFound as error:
            raise NotFound(f"there is no folder {path} in task {task_id}; make it first") from error
        mode = int(json.loads(base64.b64decode(told))["mode"]) if told else _GO_FOLDER
        if not mode & (_GO_FOLDER | _GO_LINK):
            raise Conflict(f"{path} in task {task_id} is no folder, so nothing can be unpacked there")

    async def _first_pid(self, task_id: TaskId) -> int:
        return (await self._living(task_id)).pid

    async def _living(self, task_id: TaskId) -> Inspected:
        try:
            found = await self._workloads.find(task_id)
        except NotFound as error:
            raise NotFound(f"task {task_id} is not on this node") from error
        if found.state not in _ALIVE or found.pid <= 0:
            raise Conflict(f"task {task_id} does not run, so its files cannot be reached")
        return found


def _close_late(job: Future[tuple[TreeWatch, list[Lost]]]) -> None:
    if not job.cancelled() and job.exception() is None:
        job.result()[0].close()


async def _until_end(process: FirstProcess) -> None:
    await until_readable(process.pidfd)
    raise Conflict("the workload has ended, and with it what could be watched")


async def _large_pieces(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Engines send small pieces, and each costs as much on the way as a large one."""
    waiting = bytearray()
    async for piece in content:
        waiting += piece
        if len(waiting) >= _PIECE_BYTES:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting)


class _KeptFailure:
    """Passes pieces on and keeps the source's error, which the HTTP client would hide."""

    def __init__(self, content: AsyncIterator[bytes]) -> None:
        self._content = content
        self.failure: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._content:
                yield piece
        except Exception as error:
            self.failure = error
            raise
