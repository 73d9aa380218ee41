"""What a task asks of its container, and what it takes of its image, seen from inside."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.dockerapi.images import remove_image
from kohakuriver.models.errors import EngineFault
from kohakuriver.models.spec.container_options import ContainerOptions
from kohakuriver.runner.engines.contract.spec import ImageChoice, UserIds
from support.engines.docker_images import changed_image
from support.engines.labs import DockerLab, docker_lab

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path) as ready:
        yield ready


@pytest.fixture
async def image(lab: DockerLab) -> AsyncIterator[ImageChoice]:
    """Its entry point says its arguments, who it is and where."""
    name = f"{lab.node}-speaking:1"
    script = 'echo "$@"; id -u; id -G; pwd'
    await changed_image(
        lab.api,
        name,
        Entrypoint=["/bin/sh", "-c", script, "own"],
        Cmd=["by", "default"],
        User="33:44",
        WorkingDir="/bin",
    )
    yield ImageChoice(registry_image=name)
    await remove_image(lab.api, name, force=True)


async def _said(lab: DockerLab, *argv: str, **changes: Any) -> list[str]:
    return await lab.said_by(lab.spec(*argv, **changes))


async def test_options_have_their_effect(lab: DockerLab) -> None:
    script = (
        "grep -o ' /dev/shm .*size=[0-9]*k' /proc/mounts | grep -o [0-9]*k; "
        "grep 'open files' /proc/self/limits | tr -s ' ' | grep -o 'files [0-9]* [0-9]*'; id -u; id -G; "
        "echo gone > /dev/mine && ls /dev/mine"
    )
    asked = ContainerOptions(
        shm_size_bytes=3 << 20,
        ulimits=("nofile=77:88",),
        devices=("/dev/null:/dev/mine:rwm",),
        user="0:44",
    )
    said = await _said(lab, "/bin/sh", "-c", script, options=asked)
    assert [" ".join(line.split()) for line in said] == ["3072k", "files 77 88", "0", "44", "/dev/mine"]


async def test_part_of_a_core_is_a_limit(lab: DockerLab) -> None:
    script = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max"
    said = await _said(lab, "/bin/sh", "-c", script, cores=0.25)
    assert said[0].split()[0] == "25000"


async def test_without_ipc_there_is_no_shared_memory(lab: DockerLab) -> None:
    script = "grep -c ' /dev/shm ' /proc/mounts"
    assert await _said(lab, "/bin/sh", "-c", script) == ["1"]
    assert await _said(lab, "/bin/sh", "-c", script, options=ContainerOptions(ipc="none")) == ["0"]


async def test_a_host_name_is_the_tasks_own_and_its_sandbox_is_not_used_again(lab: DockerLab) -> None:
    asked = ContainerOptions(hostname="box.lab")
    script = "hostname; cat /etc/hostname; grep -c box.lab /etc/hosts"
    assert await _said(lab, "/bin/sh", "-c", script, options=asked) == ["box.lab", "box.lab", "1"]
    for _ in range(3):
        assert (await _said(lab, "hostname"))[0].startswith(f"{lab.node}-")


async def test_an_image_runs_what_it_says(lab: DockerLab, image: ImageChoice) -> None:
    own: dict[str, Any] = {"image": image, "image_command": True, "image_folder": True}
    assert await _said(lab, **own) == ["by default", "33", "44", "/bin"]
    assert await _said(lab, "one", "t wo", **own) == ["one t wo", "33", "44", "/bin"]
    named: dict[str, Any] = {
        "options": ContainerOptions(user="7"),
        "working_dir": "/etc",
        "image_folder": False,
    }
    assert await _said(lab, **own | named) == ["by default", "7", "0", "/etc"]


async def test_a_user_that_is_not_root_stays_so_whatever_the_image_says(
    lab: DockerLab, image: ImageChoice
) -> None:
    said = await _said(lab, image=image, image_command=True, image_folder=True, user=UserIds(55, 66))
    assert said == ["by default", "55", "66", "/bin"]


async def test_of_an_image_whose_command_is_named_nothing_is_taken(
    lab: DockerLab, image: ImageChoice
) -> None:
    assert await _said(lab, "/bin/sh", "-c", "id -u; pwd", image=image) == ["0", "/"]


async def test_an_image_that_says_nothing_is_refused(lab: DockerLab) -> None:
    with pytest.raises(EngineFault, match="no command of its own"):
        await _said(lab, image_command=True, image_folder=True)


async def test_a_user_or_device_that_is_not_there_is_named(lab: DockerLab) -> None:
    with pytest.raises(EngineFault, match="nosuchuser"):
        await _said(lab, "/bin/true", options=ContainerOptions(user="nosuchuser"))
    with pytest.raises(EngineFault, match="/dev/no-such"):
        await _said(lab, "/bin/true", options=ContainerOptions(devices=("/dev/no-such:/dev/no-such:r",)))
