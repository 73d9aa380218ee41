"""What a task whose user is not root finds: its name, a home folder of its own, places to write to."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.dockerapi.images import remove_image
from kohakuriver.models.errors import NotFound
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.runner.engines.contract.processes import ExecRequest
from kohakuriver.runner.engines.contract.spec import ImageChoice, UserIds, WorkloadSpec
from kohakuriver.runner.engines.docker.inside.user_accounts import Accounts, with_user
from support.engines.docker_images import busybox_image, changed_image
from support.engines.labs import DockerLab, docker_lab, ignore
from support.engines.private_docker import remapping_daemon
from support.engines.static_images import import_bytes, tree

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(240)]

ANN = UserIds(12345, 23456, (34567,), "ann", ((23456, "staff"), (34567, "lab")))
HOME = (("HOME", ANN.home),)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[DockerLab]:
    homes = tmp_path / "homes"
    homes.mkdir(mode=0o700)
    async with docker_lab(tmp_path, homes_folder=homes) as ready:
        yield ready


def _spec(lab: DockerLab, script: str, **changes: Any) -> WorkloadSpec:
    return lab.spec("/bin/sh", "-c", script, **{"user": ANN, "env": HOME} | changes)


async def _said(lab: DockerLab, script: str, **changes: Any) -> list[str]:
    return await lab.said_by(_spec(lab, script, **changes))


async def test_a_task_knows_who_it_is_and_has_a_home_in_an_image_without_accounts(lab: DockerLab) -> None:
    script = "whoami; id -gn; id -Gn; cd && pwd && echo kept > note && cat note && stat -c %a:%u:%g ."
    said = await _said(lab, script)
    assert said == ["ann", "staff", "staff lab", ANN.home, "kept", "700:12345:23456"]


async def test_the_accounts_of_the_image_stay_behind_those_of_the_user(lab: DockerLab) -> None:
    name = f"{lab.node}-accounts:1"
    await _image_with_accounts(lab, name)
    image = ImageChoice(registry_image=name)
    try:
        for _ in range(2):  # the second time from memory
            said = await _said(lab, "whoami; id -gn; id -u web; grep -c . /etc/passwd", image=image)
            assert said == ["ann", "staff", "33", "3"]
    finally:
        await remove_image(lab.api, name, force=True)


async def _image_with_accounts(lab: DockerLab, name: str) -> None:
    """Its /etc/passwd is a link, the user's id is somebody else there, and the last line has no end."""
    script = (
        "mkdir -p /etc /usr/lib; printf 'other:x:12345:1::/:/bin/sh\\nweb:x:33:33::/:/bin/sh' > "
        "/usr/lib/passwd; rm -f /etc/passwd; ln -s ../usr/lib/passwd /etc/passwd"
    )
    script = script.replace("ln ", "busybox ln ").replace("rm ", "busybox rm ")
    await changed_image(lab.api, name, "/bin/sh", "-c", script)


async def test_an_image_without_a_shell_has_accounts_as_well(lab: DockerLab) -> None:
    spec = lab.spec("/cat", "/etc/passwd", user=ANN, image=ImageChoice(registry_image="bare"))
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    await lab.engine.wait(spec)
    await lab.engine.remove(spec.task_id, 1)
    assert [line.split(":")[0] for line in spec.stdout_path.read_text().splitlines()] == ["ann", "root"]


async def test_a_home_is_the_tasks_own_and_goes_with_it(lab: DockerLab) -> None:
    homes = lab.settings.homes_folder
    assert homes is not None
    spec = _spec(lab, "echo mine > ~/note; sleep 600")
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    try:
        assert await _said(lab, "ls -A ~") == []
        shell = await _in_task(lab, spec, "whoami; cat ~/note")
        assert shell == b"ann\nmine\n"
        assert os.listdir(homes) == [str(spec.task_id)]
        await lab.restart()
        assert os.listdir(homes) == [str(spec.task_id)]
    finally:
        await lab.engine.remove(spec.task_id, 1)
    assert os.listdir(homes) == []


async def _in_task(lab: DockerLab, spec: WorkloadSpec, script: str) -> bytes:
    """What a command in the task says once the task itself has written its note."""
    wait = "until [ -s ~/note ]; do sleep 0.05; done; "
    process = await lab.engine.processes.open(spec.task_id, ExecRequest(("/bin/sh", "-c", wait + script)))
    said = b""
    async with asyncio.timeout(60):
        while (piece := await process.read()) is not None:
            said += piece[1]
    await process.close()
    return said


async def test_what_a_killed_runner_left_of_homes_goes_with_the_next_one(lab: DockerLab) -> None:
    homes = lab.settings.homes_folder
    assert homes is not None
    (homes / "123" / "deep").mkdir(parents=True)
    name = lab.engine.accounts.container_name
    await lab.api.create_container(name, {"Image": await busybox_image(lab.api), "Entrypoint": ["/x"]})
    await lab.restart()
    assert os.listdir(homes) == []
    with pytest.raises(NotFound):
        await lab.api.json("GET", f"containers/{name}/json")


async def test_mounts_that_were_asked_for_come_before_ours(lab: DockerLab, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o777)
    (folder / "sign").write_text("theirs\n")
    mounts = (Mount(str(folder), "/home"),)
    assert await _said(lab, "cat /home/sign", mounts=mounts) == ["theirs"]
    assert sorted(path.name for path in folder.iterdir()) == ["sign"]


async def test_a_task_of_root_is_left_as_it_was(lab: DockerLab) -> None:
    said = await _said(lab, "ls -A /home /etc/passwd", user=UserIds(0, 0), env=())
    assert all("No such file" in line for line in said), said


async def test_an_image_with_huge_accounts_gives_whole_lines(lab: DockerLab) -> None:
    line = b"someone:x:77:77::/:/bin/sh\n"
    name = f"{lab.node}-huge:1"
    await import_bytes(lab.api, tree({"etc/passwd": line * 200_000}), name)
    try:
        found = await lab.engine.accounts.of(name)
        assert 900_000 < len(found.passwd) <= 1 << 20
        assert set(found.passwd.splitlines(keepends=True)) == {line}
    finally:
        await remove_image(lab.api, name, force=True)


async def test_where_the_engine_maps_users_it_is_the_same() -> None:
    with remapping_daemon() as daemon:
        folder = daemon.place.folder.parent
        for name, mode in (("homes", 0o700), ("data", 0o1777)):
            (folder / name).mkdir()
            (folder / name).chmod(mode)
        async with docker_lab(folder, url=daemon.url, homes_folder=folder / "homes") as lab:
            mounts = (Mount(str(folder / "data"), "/local_temp"),)
            script = "whoami; echo kept > ~/note; cat ~/note; stat -c %u ~/note; echo x > file && pwd"
            said = await _said(lab, script, mounts=mounts, working_dir="/local_temp")
            assert said == ["ann", "kept", "12345", "/local_temp"]
            assert (folder / "data" / "file").stat().st_uid == 200_000 + ANN.uid


def test_a_user_without_names_is_called_by_its_number() -> None:
    made = with_user(Accounts(b"root:x:0:0::/:/bin/sh\n", b""), UserIds(7, 8))
    assert made.passwd.startswith(b"user7:x:7:8::/home/user7:/bin/sh\nroot:")
    assert made.group == b"user7:x:8:\n"
