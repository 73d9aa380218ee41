"""Files of running workloads on the real engine: through the first process, and as archives."""

import asyncio
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from kohakuriver.files.changing import delete_file, make_folder, write_file
from kohakuriver.files.looking import list_folder, read_file
from kohakuriver.files.requests import ListFolder
from kohakuriver.files.rooted_fs import RootedFs
from kohakuriver.files.service import AT_ONCE, FileService
from kohakuriver.files.system import first_process
from kohakuriver.files.system.first_process import FirstProcess
from kohakuriver.host.environments.engine_link import EngineLink
from kohakuriver.host.environments.environment_settings import EnvironmentSettings
from kohakuriver.host.environments.service import EnvironmentService
from kohakuriver.models.errors import (
    Conflict,
    Denied,
    EngineFault,
    InvalidInput,
    KohakuRiverError,
    NotFound,
    Unavailable,
)
from kohakuriver.models.ids import TaskId
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.runner.api.streams import StreamCall
from kohakuriver.runner.engines.contract.processes import ExecRequest
from kohakuriver.runner.engines.docker.access.files import ContainerFiles
from kohakuriver.runner.files.file_streams import FileStreams
from kohakuriver.wire.channel import Channel
from kohakuriver.wire.file_frames import ARCHIVE_DONE, ARCHIVE_END
from support.engines.docker_images import busybox_image
from support.engines.labs import DockerLab, docker_lab, fresh_task_id, ignore, until
from support.messages.channels import MemoryChannel, channel_pair

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]
Result = TypeVar("Result")


@pytest.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path_factory.mktemp("engine"), pool_size=1) as real:
        yield real


@dataclass(frozen=True)
class _Request:
    """Work of a test as a request."""

    run: Callable[[RootedFs], Any]


class Workload:
    """One that sleeps, its files, and its streams."""

    def __init__(self, lab: DockerLab, task_id: TaskId) -> None:
        self.lab = lab
        self.task_id = task_id
        self.streams = FileStreams(lambda _: lab.engine)

    async def perform(self, work: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        request = _Request(lambda fs: work(fs, *arguments, **options))
        result: Result = await self.lab.engine.files.perform(self.task_id, request)
        return result

    @asynccontextmanager
    async def stream(self, name: str, **query: str) -> AsyncIterator[MemoryChannel]:
        ours, theirs = channel_pair()
        handler = self.streams.handlers()[f"/ws/fs/{{task_id}}/{name}"]
        serving = asyncio.create_task(_served(handler(self._call(query), theirs), theirs))
        try:
            yield ours
        finally:
            await ours.close()
            async with asyncio.timeout(10):
                await serving

    def _call(self, query: dict[str, str]) -> StreamCall:
        return StreamCall({"task_id": str(self.task_id)}, query)


async def _served(serving: Any, channel: Channel) -> None:
    """As the runner's API does it."""
    error: KohakuRiverError | None = None
    try:
        await serving
    except KohakuRiverError as refused:
        error = refused
    await channel.close(error)


@asynccontextmanager
async def running(lab: DockerLab, **changes: Any) -> AsyncIterator[Workload]:
    spec = lab.spec(*lab.argv("sleep", "600"), **changes)
    await lab.engine.create(spec, ignore)
    workload = Workload(lab, spec.task_id)
    try:
        await lab.engine.start(spec.task_id, 1)
        yield workload
    finally:
        await lab.engine.remove(spec.task_id, 1)


@pytest.fixture(scope="module")
async def workload(lab: DockerLab) -> AsyncIterator[Workload]:
    async with running(lab) as found:
        yield found


async def test_files_are_those_that_the_workload_sees(lab: DockerLab, workload: Workload) -> None:
    page = await workload.perform(list_folder, "/")
    assert {"bin", "proc", "dev"} <= {entry.name for entry in page.entries}
    await workload.perform(write_file, "/greeting", b"hello")
    assert (await workload.perform(read_file, "/greeting")).content == "hello"
    assert (await workload.perform(read_file, "/etc/hostname")).content.startswith("kr-test-")


async def test_the_kernels_places_are_refused_through_links_too(workload: Workload) -> None:
    await workload.perform(make_folder, "/l")
    root = Path(f"/proc/{await workload.lab.first_pid(workload.task_id)}/root")
    for name, target in (("p", "/proc"), ("s", "../../sys"), ("d", "/dev"), ("root", "/proc/1/root")):
        (root / "l" / name).symlink_to(target)
    for path in ("/proc/1/environ", "/sys/kernel", "/dev/null", "/l/p/1/environ", "/l/s/kernel", "/l/d/null"):
        with pytest.raises(Denied, match="belongs to the kernel"):
            await workload.perform(read_file, path)
    for path in ("/l/root/etc/passwd", "/l/p/1/root/etc/passwd", "/l/p/1/exe", "/l/p/self/root/etc/passwd"):
        with pytest.raises((Denied, InvalidInput, NotFound)):
            await workload.perform(read_file, path)
    with pytest.raises(Denied):
        await workload.perform(write_file, "/l/d/shm/x", b"")


async def test_a_paused_workload_has_its_files(lab: DockerLab) -> None:
    async with running(lab) as paused:
        await lab.engine.pause(paused.task_id, 1)
        await paused.perform(write_file, "/while-paused", b"x")
        assert (await paused.perform(read_file, "/while-paused")).content == "x"
        await lab.engine.resume(paused.task_id, 1)


async def test_one_that_does_not_run_and_one_that_is_not_there_are_told_apart(lab: DockerLab) -> None:
    files = lab.engine.files
    ended = lab.spec("/bin/true")
    await lab.engine.create(ended, ignore)
    try:
        with pytest.raises(Conflict, match="does not run"):
            await files.perform(ended.task_id, ListFolder("/"))
        with pytest.raises(NotFound, match="not on this node"):
            await files.perform(fresh_task_id(), ListFolder("/"))
    finally:
        await lab.engine.remove(ended.task_id, 1)


async def test_a_number_that_is_another_process_by_now_is_not_looked_into(lab: DockerLab) -> None:
    """The engine's second answer differs from its first: the process that was opened may be anybody's."""
    async with running(lab) as one:
        pids = iter([await lab.first_pid(one.task_id), 1])

        async def first_pid(_key: str) -> int:
            return next(pids)

        service: FileService[str] = FileService(first_pid)
        with pytest.raises(Conflict, match="restarted just now"):
            await service.perform("x", lambda fs: list_folder(fs, "/"))
        service.close()


async def test_a_process_of_this_machine_itself_is_never_looked_into() -> None:
    """What the engine of another machine says would be somebody else's number here."""
    process = FirstProcess(os.getpid())
    try:
        with pytest.raises(Unavailable, match="one machine"):
            process.open_root()
    finally:
        process.close()


async def test_a_process_that_ended_while_it_was_opened_is_noticed(
    lab: DockerLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(lab) as one:
        process = FirstProcess(await lab.first_pid(one.task_id))
        monkeypatch.setattr(first_process.FirstProcess, "has_ended", lambda _self: True)
        with pytest.raises(Conflict):
            process.open_root()
        process.close()


async def test_one_workload_leaves_threads_to_the_others(workload: Workload, lab: DockerLab) -> None:
    """Storage that hangs holds the operations of one workload, and no more than its share of the threads."""
    held = asyncio.Event()
    started: list[RootedFs] = []
    loop = asyncio.get_running_loop()

    def hang(fs: RootedFs) -> None:
        started.append(fs)
        asyncio.run_coroutine_threadsafe(held.wait(), loop).result(30)

    hanging = [asyncio.create_task(workload.perform(hang)) for _ in range(AT_ONCE)]
    try:
        await until(lambda: _is(len(started) == AT_ONCE))
        with pytest.raises(Unavailable, match="under way"):
            await workload.perform(list_folder, "/")
        async with running(lab) as other:
            assert await other.perform(list_folder, "/")
    finally:
        held.set()
        await asyncio.gather(*hanging)
    assert await workload.perform(list_folder, "/")


async def _is(condition: bool) -> bool:
    return condition


async def test_a_mount_inside_is_not_emptied_with_the_folder_around_it(
    lab: DockerLab, tmp_path: Path
) -> None:
    (tmp_path / "precious").touch()
    mount = Mount(str(tmp_path), "/data/shared", read_only=False)
    async with running(lab, mounts=(mount,)) as one:
        await one.perform(write_file, "/data/own", b"")
        assert (await one.perform(list_folder, "/data/shared")).total == 1
        with pytest.raises(Conflict, match="holds a mount"):
            await one.perform(delete_file, "/data", recursive=True)
        with pytest.raises(Conflict):
            await one.perform(delete_file, "/data/shared", recursive=True)
        (tmp_path / "more").touch()
        assert (await one.perform(list_folder, "/data/shared")).total >= 1
    assert (tmp_path / "more").exists()


async def test_a_read_only_mount_stays_read_only(lab: DockerLab, tmp_path: Path) -> None:
    async with running(lab, mounts=(Mount(str(tmp_path), "/data", read_only=True),)) as one:
        with pytest.raises(Conflict, match="read-only"):
            await one.perform(write_file, "/data/x", b"")
    assert os.listdir(tmp_path) == []


async def _next(channel: MemoryChannel) -> dict[str, Any]:
    async with asyncio.timeout(10):
        message = await channel.receive()
    assert isinstance(message, str)
    frame: dict[str, Any] = msgspec.json.decode(message)
    return frame


async def test_a_watch_tells_what_the_workload_itself_does(workload: Workload) -> None:
    """Without any tool in the image."""
    await workload.perform(make_folder, "/watched")
    async with workload.stream("watch", paths='["/watched"]') as channel:
        assert await _next(channel) == {"type": "watching", "paths": ["/watched"]}
        status = await _exec(workload, "echo x >/watched/a; mv /watched/a /watched/b; rm /watched/b")
        assert status == 0
        seen = [await _next(channel) for _ in range(4)]
        assert [frame["event"] for frame in seen] == ["CREATE", "MODIFY", "MOVE", "DELETE"]
        assert seen[2] == {
            "type": "change",
            "event": "MOVE",
            "path": "/watched/b",
            "old_path": "/watched/a",
            "is_dir": False,
        }


async def _exec(workload: Workload, script: str) -> int:
    request = ExecRequest(("/bin/sh", "-c", script))
    process = await workload.lab.engine.processes.open(workload.task_id, request)
    try:
        while await process.read() is not None:
            continue
        return await process.exit_status()
    finally:
        await process.close()


async def test_a_watch_ends_with_its_workload(lab: DockerLab) -> None:
    async with running(lab) as one, one.stream("watch", paths='["/"]') as channel:
        assert (await _next(channel))["type"] == "watching"
        await lab.engine.stop(one.task_id, 1, 0)
        with pytest.raises(Conflict, match="has ended"):
            await _read_out(channel)


async def _read_out(channel: MemoryChannel) -> None:
    async with asyncio.timeout(10):
        while await channel.receive() is not None:
            continue


@pytest.mark.parametrize(
    ("paths", "kind"),
    [('["/missing"]', NotFound), ('["/proc"]', Denied), ("[]", InvalidInput), ("x", InvalidInput)],
)
async def test_what_cannot_be_watched_is_refused(
    workload: Workload, paths: str, kind: type[KohakuRiverError]
) -> None:
    async with workload.stream("watch", paths=paths) as channel:
        with pytest.raises(kind):
            await channel.receive()


async def _archive(channel: MemoryChannel) -> bytes:
    pieces = []
    async with asyncio.timeout(60):
        while (piece := await channel.receive()) is not None:
            assert isinstance(piece, bytes)
            pieces.append(piece)
    return b"".join(pieces)


def _tar(**files: bytes) -> bytes:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, BytesIO(content))
    return buffer.getvalue()


async def test_archives_go_both_ways(workload: Workload) -> None:
    await workload.perform(make_folder, "/archive")
    content = os.urandom(1 << 20)
    async with workload.stream("archive", path="/archive", mode="write") as channel:
        sent = _tar(large=content, small=b"s")
        for place in range(0, len(sent), 100_000):
            await channel.send(sent[place : place + 100_000])
        await channel.send(ARCHIVE_END)
        assert await channel.receive() == ARCHIVE_DONE
        assert await channel.receive() is None
    async with workload.stream("archive", path="/archive", mode="read") as channel:
        received = await _archive(channel)
    with tarfile.open(fileobj=BytesIO(received)) as archive:
        assert sorted(archive.getnames()) == ["archive", "archive/large", "archive/small"]
        found = archive.extractfile("archive/large")
        assert found is not None
        assert found.read() == content


async def test_an_archive_of_nothing_and_into_nothing_is_an_error(workload: Workload) -> None:
    async with workload.stream("archive", path="/missing", mode="read") as channel:
        with pytest.raises(NotFound, match="no /missing"):
            await channel.receive()
    async with workload.stream("archive", path="/missing", mode="write") as channel:
        with pytest.raises(NotFound, match="no folder /missing"):
            await channel.receive()
    async with workload.stream("archive", path="/proc/1", mode="read") as channel:
        with pytest.raises(Denied):
            await channel.receive()


async def test_an_archive_that_the_host_breaks_off_is_no_success(workload: Workload) -> None:
    ours, theirs = channel_pair()
    call = StreamCall({"task_id": str(workload.task_id)}, {"path": "/", "mode": "write"})
    serving = asyncio.create_task(workload.streams.archive(call, theirs))
    await ours.send(_tar(broken=bytes(1000))[:700])
    await ours.close()
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match="broken off"):
            await serving


async def test_an_engine_that_breaks_off_is_noticed_although_it_ends_its_answer(workload: Workload) -> None:
    """Engines write their error behind the tar stream, or nothing, and close in order."""
    whole = _tar(a=b"x" * 2000)

    class Answer:
        def __init__(self, content: bytes) -> None:
            self.content = self
            self._content = content

        async def iter_any(self) -> AsyncIterator[bytes]:
            for place in range(0, len(self._content), 700):
                yield self._content[place : place + 700]

    class Engine:
        answer = whole

        @asynccontextmanager
        async def stream(self, *_: Any, **options: Any) -> AsyncIterator[Answer]:
            # An engine that is let compresses, at a tenth of the speed.
            assert options["headers"] == {"Accept-Encoding": "identity"}
            yield Answer(self.answer)

    engine = Engine()
    files = ContainerFiles(engine, workload.lab.engine.workloads, lambda: None)  # type: ignore[arg-type]

    async def read() -> bytes:
        async with aclosing(files.read_archive(workload.task_id, "/a")) as pieces:
            return b"".join([piece async for piece in pieces])

    assert await read() == whole
    for cut in (0, 511, 512, 1000, 2560, 3000):
        engine.answer = whole[:cut] if cut != 1000 else whole[:1024] + b'{"message":"write failed"}'
        with pytest.raises(EngineFault):
            await read()


async def test_an_environment_has_its_files_on_the_host(tmp_path: Path) -> None:
    engine = EngineLink()
    settings = EnvironmentSettings(tar_dir=tmp_path / "tars", shared_data_dir=tmp_path / "shared")
    environments = EnvironmentService(settings, engine)
    name = f"files-{os.getpid()}"
    api = await engine.get()
    try:
        await environments.create_container(await busybox_image(api), name)
        await environments.files.perform(name, lambda fs: write_file(fs, "/etc/x", b"y", create_parents=True))
        found = await environments.files.perform(name, lambda fs: read_file(fs, "/etc/x"))
        assert found.content == "y"
        await environments.stop_container(name)
        with pytest.raises(Conflict, match="start it first"):
            await environments.files.perform(name, lambda fs: list_folder(fs, "/"))
        with pytest.raises(NotFound):
            await environments.files.perform("files-none", lambda fs: list_folder(fs, "/"))
    finally:
        environments.close()
        await environments.delete_container(name)
        await engine.close()
