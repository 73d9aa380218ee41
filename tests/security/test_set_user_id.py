"""Set-user-id programs: a task whose user is not root does not become root by one of its image."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kohakuriver.dockerapi.images import remove_image
from kohakuriver.runner.engines.contract.spec import ImageChoice, UserIds
from support.engines import DockerLab, docker_lab, ignore
from support.static_images import import_bytes, tree
from support.tiny_program import is_root_program

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]

_IS_ROOT, _IS_NOT = 0, 1


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path) as ready:
        yield ready


@pytest.fixture
async def image(lab: DockerLab) -> AsyncIterator[ImageChoice]:
    """An image whose one program is root's and set-user-id."""
    name = f"{lab.node}-set-user-id:1"
    await import_bytes(lab.api, tree({"p": is_root_program()}, mode=0o4755), name)
    yield ImageChoice(registry_image=name)
    await remove_image(lab.api, name)


async def _exit_status(lab: DockerLab, image: ImageChoice, uid: int, *, privileged: bool) -> int:
    spec = lab.spec("/p", image=image, user=UserIds(uid, uid), privileged=privileged)
    await lab.engine.create(spec, ignore)
    try:
        await lab.engine.start(spec.task_id, 1)
        return (await lab.engine.wait(spec)).exit_code
    finally:
        await lab.engine.remove(spec.task_id, 1)


async def test_a_program_of_the_image_makes_nobody_root(lab: DockerLab, image: ImageChoice) -> None:
    assert await _exit_status(lab, image, 0, privileged=False) == _IS_ROOT
    for privileged in (False, True):
        assert await _exit_status(lab, image, 65534, privileged=privileged) == _IS_NOT
