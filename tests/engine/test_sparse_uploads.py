"""Sparse files in tar streams into a workload: filled by the runner, inside of it and nowhere else."""

import os
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.client.streams.tree_packing import END
from kohakuriver.models.errors import Conflict, EngineFault, KohakuRiverError, NoCapacity
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.streams.sparse_tar import Part, sparse_head
from support.engines.labs import DockerLab, docker_lab, ignore

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(240)]
MIB = 1 << 20


@pytest.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path_factory.mktemp("engine"), pool_size=1) as real:
        yield real


@pytest.fixture(scope="module")
async def task(lab: DockerLab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WorkloadSpec]:
    folder = tmp_path_factory.mktemp("mine")
    mounts = (Mount(str(folder), "/mine"), Mount(str(folder), "/fixed", read_only=True))
    spec = lab.spec(*lab.argv("sleep", "600"), mounts=mounts)
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    yield spec
    await lab.engine.remove(spec.task_id, 1)


def sparse(name: str, size: int, parts: list[Part], content: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uid, info.gid, info.mtime = size, 0o640, 7, 8, 1_000_000_000
    return sparse_head(info, parts) + content + bytes(-len(content) % 512)


async def send(lab: DockerLab, task: WorkloadSpec, stream: bytes, path: str = "/") -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for place in range(0, len(stream), 700):
            yield stream[place : place + 700]

    await lab.engine.files.write_archive(task.task_id, path, pieces())


async def inside(lab: DockerLab, task: WorkloadSpec, path: str) -> Path:
    pid = await lab.first_pid(task.task_id)
    return Path(f"/proc/{pid}/root{path}")


@pytest.mark.parametrize("folder", ["/", "/mine"])
async def test_a_sparse_file_takes_no_more_room_than_its_content(
    lab: DockerLab, task: WorkloadSpec, folder: str
) -> None:
    parts = [(0, 5), (8 * MIB, 700), (64 * MIB - 3, 3)]
    stream = sparse("image", 64 * MIB, parts, b"begin" + b"m" * 700 + b"end")
    await send(lab, task, stream + sparse("all-hole", 1 << 40, [], b"") + END, folder)
    path = await inside(lab, task, f"{folder.rstrip('/')}/image")
    facts, content = path.stat(), path.read_bytes()
    assert (content[:6], content[8 * MIB : 8 * MIB + 701]) == (b"begin\0", b"m" * 700 + b"\0")
    assert (len(content), content[-4:]) == (64 * MIB, b"\0end")
    assert facts.st_blocks * 512 < MIB
    assert (facts.st_mode & 0o777, facts.st_uid, facts.st_gid, facts.st_mtime) == (0o640, 7, 8, 10**9)
    assert path.with_name("all-hole").stat().st_size == 1 << 40


async def test_links_lead_nowhere_but_in_the_workload(lab: DockerLab, task: WorkloadSpec) -> None:
    root = await inside(lab, task, "/")
    outside = Path("/tmp/kohakuriver-sparse-treasure")
    outside.unlink(missing_ok=True)
    (root / "tmp").mkdir(exist_ok=True)
    (root / "way").symlink_to("/tmp")
    await send(lab, task, sparse(f"way/{outside.name}", 4 * MIB, [(0, 1)], b"x") + END)
    assert not outside.exists()
    assert (root / "tmp" / outside.name).stat().st_size == 4 * MIB


async def test_what_the_workload_put_in_its_place_is_not_written(
    lab: DockerLab, task: WorkloadSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = await inside(lab, task, "/")
    (root / "secret").write_bytes(b"")
    files = lab.engine.files
    answer_of = lab.api.stream

    @asynccontextmanager
    async def put_and_swap(method: str, path: str, **options: Any) -> AsyncIterator[Any]:
        async with answer_of(method, path, **options) as answer:
            yield answer
        if method == "PUT":
            (root / "swapped").unlink()
            os.link(root / "secret", root / "swapped")

    monkeypatch.setattr(lab.api, "stream", put_and_swap)

    async def pieces() -> AsyncIterator[bytes]:
        yield sparse("swapped", 4 * MIB, [(0, 1)], b"x") + END

    with pytest.raises(Conflict, match="was changed while it was copied"):
        await files.write_archive(task.task_id, "/", pieces())
    assert (root / "secret").read_bytes() == b""


@pytest.mark.parametrize(
    ("stream", "kind"),
    [
        (sparse("huge", (1 << 63) - 1, [], b""), NoCapacity),
        (sparse("f", 4 * MIB, [(3, 5), (0, 5)], b"x" * 10), EngineFault),
        (sparse("f", 4 * MIB, [(0, 5000)], b"x" * 5000)[:-1000], EngineFault),
        (sparse("f", 4 * MIB, [(0, 512)], b"x" * 1024), EngineFault),
    ],
    ids=["larger than any file", "overlapping", "cut off", "more than the map says"],
)
async def test_what_cannot_be_ends_the_copy_with_a_sentence(
    lab: DockerLab, task: WorkloadSpec, stream: bytes, kind: type[KohakuRiverError]
) -> None:
    with pytest.raises(kind):
        await send(lab, task, stream if len(stream) % 512 else stream + END)


async def test_a_read_only_mount_stays_as_it_is(lab: DockerLab, task: WorkloadSpec) -> None:
    with pytest.raises(KohakuRiverError):
        await send(lab, task, sparse("f", 4 * MIB, [(0, 1)], b"x") + END, "/fixed")
