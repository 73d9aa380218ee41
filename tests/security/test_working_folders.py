"""Working directories: a task whose user is not root does not come by one to what others keep closed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.dockerapi.images import remove_image
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.runner.engines.contract.engine import ExitResult
from kohakuriver.runner.engines.contract.processes import ExecRequest
from kohakuriver.runner.engines.contract.spec import ImageChoice, UserIds, WorkloadSpec
from support.engines.docker_images import changed_image
from support.engines.labs import DockerLab, docker_lab, ignore

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(240)]

USER = UserIds(12345, 23456)
SECRET = "what others keep closed"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path) as ready:
        yield ready


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder of everybody's with one in it that is closed, in which an open one holds a readable file."""
    folder = tmp_path / "shared_data"
    inner = folder / "closed" / "project"
    inner.mkdir(parents=True)
    (inner / "secret").write_text(SECRET)
    (folder / "closed").chmod(0o700)
    folder.chmod(0o1777)
    return folder


async def run(lab: DockerLab, shared: Path, *argv: str, **changes: Any) -> tuple[ExitResult, str]:
    spec = _spec(lab, shared, *argv, **changes)
    await lab.engine.create(spec, ignore)
    try:
        await lab.engine.start(spec.task_id, 1)
        result = await lab.engine.wait(spec)
    finally:
        await lab.engine.remove(spec.task_id, 1)
    return result, spec.stdout_path.read_text() + spec.stderr_path.read_text()


def _spec(lab: DockerLab, shared: Path, *argv: str, **changes: Any) -> WorkloadSpec:
    mounts = (Mount(str(shared), "/shared"),)
    return lab.spec(*argv, **{"user": USER, "mounts": mounts, "working_dir": "/shared"} | changes)


async def test_a_task_does_not_begin_below_a_closed_folder(lab: DockerLab, shared: Path) -> None:
    for argv in (("cat", "secret"), ("cat", "/proc/1/cwd/secret")):
        result, said = await run(lab, shared, *argv, working_dir="/shared/closed/project")
        assert SECRET not in said
        assert "working directory" in (result.error or "")


async def test_no_folder_is_made_there_with_roots_rights(lab: DockerLab, shared: Path) -> None:
    for folder in ("/shared/closed/made", "/shared/made"):
        result, _ = await run(lab, shared, "true", working_dir=folder)
        assert "No such file" in (result.error or "") or "Permission denied" in (result.error or "")
    assert sorted(path.name for path in shared.rglob("made")) == []


async def test_a_link_of_the_image_leads_there_neither(lab: DockerLab, shared: Path) -> None:
    name = f"{lab.node}-linked:1"
    await _image_with_link(lab, name, "/x", "/shared/closed/project")
    image = ImageChoice(registry_image=name)
    try:
        for word in ("secret", "/proc/1/cwd/secret", "/proc/self/cwd/secret"):
            _, said = await run(lab, shared, "cat", word, image=image, working_dir="/x")
            assert SECRET not in said
    finally:
        await remove_image(lab.api, name, force=True)


async def _image_with_link(lab: DockerLab, name: str, link: str, target: str) -> None:
    await changed_image(lab.api, name, "/bin/busybox", "ln", "-s", target, link)


async def test_commands_in_a_task_do_not_begin_there(lab: DockerLab, shared: Path) -> None:
    spec = _spec(lab, shared, "sleep", "600", working_dir="/shared")
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    try:
        request = ExecRequest(("cat", "secret"), working_dir="/shared/closed/project")
        status, said = await _said(lab, spec, request)
        folder = "/shared/closed/project"
        assert (status, said) == (126, f"Error: the working directory '{folder}' cannot be used\n")
        own = ExecRequest(("/bin/sh", "-c", "pwd; id -u; echo $0 $#", "a b", "c d"))
        assert await _said(lab, spec, own) == (0, f"/shared\n{USER.uid}\na b 1\n")
        assert await _said(lab, spec, ExecRequest(("pwd",), working_dir="/bin")) == (0, "/bin\n")
        for name in ("nosuch", "/bin/nosuch", "./nosuch"):
            missing = f"Error: the command '{name}' was not found in the image\n"
            assert await _said(lab, spec, ExecRequest((name,))) == (127, missing)
        denied = "Error: the command '/bin' cannot be executed: permission denied\n"
        assert await _said(lab, spec, ExecRequest(("/bin",))) == (126, denied)
    finally:
        await lab.engine.remove(spec.task_id, 1)


async def _said(lab: DockerLab, spec: WorkloadSpec, request: ExecRequest) -> tuple[int, str]:
    process = await lab.engine.processes.open(spec.task_id, request)
    said = b""
    try:
        async with asyncio.timeout(60):
            while (piece := await process.read()) is not None:
                said += piece[1]
            return await process.exit_status(), said.decode()
    finally:
        await process.close()


async def test_folders_that_the_user_may_enter_serve_as_before(lab: DockerLab, shared: Path) -> None:
    result, said = await run(lab, shared, "sh", "-c", "pwd; exit 7")
    assert (result.exit_code, said) == (7, "/shared\n")
    _, said = await run(lab, shared, "busybox", "env", env=(("A-B.c", "1"), ("A", "x y")))
    assert {"A-B.c=1", "A=x y"} <= set(said.splitlines())
    result, said = await run(lab, shared, "nosuch")
    assert said == ""
    assert "'nosuch' was not found" in (result.error or "")


async def test_a_shell_in_a_task_opens_where_the_task_began(lab: DockerLab, shared: Path) -> None:
    spec = _spec(lab, shared, "sleep", "600", working_dir="/shared")
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    try:
        process = await lab.engine.processes.open(spec.task_id, ExecRequest(rows=24, cols=80))
        said = b""
        try:
            await process.write(b"echo $(id -u) at $(pwd); exit 3\n")
            async with asyncio.timeout(60):
                while (piece := await process.read()) is not None:
                    said += piece[1]
            assert f"{USER.uid} at /shared".encode() in said
            assert await process.exit_status() == 3
        finally:
            await process.close()
    finally:
        await lab.engine.remove(spec.task_id, 1)
