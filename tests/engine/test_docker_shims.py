"""What stands between containers and their engine: found without it, held, and ended behind its back."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kohakuriver.models.errors import NotFound
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.docker.kernel.container_shims import children_of, parent_of, shim_of
from kohakuriver.runner.engines.docker.kernel.forgotten import Forgotten, end_forgotten
from kohakuriver.runner.engines.docker.labels import Owner
from kohakuriver.runner.engines.docker.output.held_pipes import HeldPipes
from kohakuriver.runner.engines.docker.output.pipe_keeper import PipeKeeper
from kohakuriver.runner.engines.docker.workloads.containers import Inspected, WorkloadContainers
from support.engines.labs import DockerLab, docker_lab, ignore, until

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]

NOBODY = "0" * 64


@pytest.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path_factory.mktemp("engine"), pool_size=1) as real:
        yield real


async def begin(lab: DockerLab, *argv: str) -> tuple[WorkloadSpec, Inspected]:
    spec = lab.spec(*argv)
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    found = await WorkloadContainers(lab.api, Owner(lab.node, [f"{lab.node}-cluster"])).inspect(
        f"kohakuriver-task-{spec.task_id}"
    )
    return spec, found


async def test_a_shim_is_found_by_its_container_and_is_the_parent_of_it(lab: DockerLab) -> None:
    spec, found = await begin(lab, "/bin/sleep", "60")
    shim = shim_of(found.id)
    assert shim == parent_of(found.pid)
    assert children_of(shim) == [found.pid]
    assert shim_of(NOBODY) is None
    await lab.engine.remove(spec.task_id, 1)


def held_here(container_id: str) -> list[str]:
    """Streams of the container whose pipes this process has open; engines differ in what stands before."""
    links: list[Path] = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(Path(os.readlink(entry)))
    return sorted(link.name.rpartition("-")[2] for link in links if link.parent.name == container_id)


@pytest.mark.parametrize("with_pid", [True, False])
async def test_pipes_are_held_and_the_engine_that_is_there_takes_all_output(
    lab: DockerLab, tmp_path: Path, with_pid: bool
) -> None:
    spec, found = await begin(lab, "/bin/sh", "-c", "echo out; echo err >&2; sleep 60")
    pipes = HeldPipes(found.id, PipeKeeper(tmp_path))
    pipes.hold(found.pid if with_pid else 0)
    pipes.hold(found.pid)
    assert held_here(found.id) == ["stderr", "stdout"]

    async def nothing_left() -> bool:
        return pipes.rest() == (b"", b"")

    await until(nothing_left)
    pipes.drop()
    assert held_here(found.id) == []
    await lab.engine.remove(spec.task_id, 1)


async def test_what_runs_behind_the_engines_back_is_ended(lab: DockerLab) -> None:
    spec, found = await begin(lab, "/bin/sleep", "60")
    assert end_forgotten(found.id) is Forgotten.BEGUN

    async def ended() -> bool:
        return not Path(f"/proc/{found.pid}").exists() and shim_of(found.id) is None

    await until(ended)
    assert end_forgotten(found.id) is Forgotten.NOTHING
    assert (await lab.engine.wait(spec)).exit_code != 0
    await lab.engine.remove(spec.task_id, 1)
    with pytest.raises(NotFound):
        await lab.engine.wait(spec)
