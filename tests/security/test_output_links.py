"""Links planted where output of tasks lies: nothing is written, emptied or read through one (line 20).

Whoever can write to the folder of logs knows the ids of tasks and could name the files for them in advance.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kohakuriver.dockerapi.images import remove_image, tag_image
from kohakuriver.host.shared_storage import prepare_shared_storage
from kohakuriver.models.enums import Stream
from kohakuriver.models.errors import EngineFault, InvalidInput, NotFound
from kohakuriver.models.names import snapshot_repository
from kohakuriver.models.output.places import TIMES_FILE, OutputIndex, OutputPlace
from kohakuriver.runner.api.output import read_window
from kohakuriver.runner.local_temp import prepare_local_temp
from kohakuriver.runner.vps_service import SNAPSHOT_FOLDER
from support.engines.docker_images import busybox_image
from support.engines.labs import DockerLab, docker_lab, fresh_task_id, ignore

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path / "lab") as ready:
        yield ready


@pytest.mark.parametrize(("level", "name"), [*((level, "stdout.log") for level in range(4)), (3, TIMES_FILE)])
async def test_output_goes_through_no_link_at_any_level(
    lab: DockerLab, tmp_path: Path, level: int, name: str
) -> None:
    storage, victim = tmp_path / "storage", tmp_path / "victim"
    task_id = fresh_task_id()
    names = ("logs", str(task_id), "attempt-2", name)
    target = victim.joinpath(*names[level + 1 :])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("precious")
    storage.joinpath(*names[:level]).mkdir(parents=True)
    storage.joinpath(*names[: level + 1]).symlink_to(victim)
    path = storage.joinpath(*names).with_name("stdout.log")
    spec = lab.spec(
        "/bin/echo",
        "root::0:0::/:",
        task_id=task_id,
        attempt=2,
        stdout_path=path,
        stderr_path=path.with_name("stderr.log"),
        output_starts=(storage,),
    )
    with pytest.raises(EngineFault, match="cannot be written"):
        await lab.engine.create(spec, ignore)
    found = [file.read_text() for file in (victim, *victim.rglob("*")) if file.is_file()]
    assert found == ["precious"]
    part = OutputIndex.TIMES if name == TIMES_FILE else Stream.STDOUT
    with pytest.raises(NotFound):
        read_window(storage, OutputPlace(task_id, 2, part), 0, 100)


@pytest.mark.parametrize("below", ["", "kohakuriver"])
def test_a_link_that_somebody_put_where_the_local_folder_is_to_be_is_refused(
    tmp_path: Path, below: str
) -> None:
    """As in /tmp, before the runner's first start there: whose it is can have it lead elsewhere later."""
    ours = tmp_path / "ours"
    (ours / below).mkdir(parents=True)
    open_to_all = tmp_path / "tmp"
    open_to_all.mkdir()
    open_to_all.chmod(0o1777)
    link = open_to_all / "link"
    link.symlink_to(ours)
    prepare_local_temp(link / below)  # the administrator's own
    os.lchown(link, 12345, 12345)
    with pytest.raises(InvalidInput, match="a link of another user"):
        prepare_local_temp(link / below)


async def test_a_link_in_the_place_of_the_administrators_own_folder_is_followed(
    lab: DockerLab, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "storage").symlink_to(tmp_path / "disk")
    path = tmp_path / "storage/logs/1/stdout.log"
    spec = lab.spec("/bin/echo", "fine", stdout_path=path, output_starts=(tmp_path / "storage",))
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    await lab.engine.wait(spec)
    await lab.engine.remove(spec.task_id, 1)
    assert (tmp_path / "disk/logs/1/stdout.log").read_text() == "fine\n"


@pytest.mark.parametrize("name", ["stdout.log", TIMES_FILE])
async def test_a_file_with_a_second_name_is_not_emptied(lab: DockerLab, tmp_path: Path, name: str) -> None:
    (tmp_path / "victim").write_text("precious")
    path = tmp_path / "logs/1/stdout.log"
    path.parent.mkdir(parents=True)
    path.with_name(name).hardlink_to(tmp_path / "victim")
    with pytest.raises(EngineFault, match="second name"):
        await lab.engine.create(lab.spec("/bin/echo", "x", stdout_path=path), ignore)
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("level", range(2))
async def test_a_snapshot_goes_into_shared_storage_through_no_link(
    lab: DockerLab, tmp_path: Path, level: int
) -> None:
    storage, victim, task_id = tmp_path / "storage", tmp_path / "victim", fresh_task_id()
    names = (SNAPSHOT_FOLDER, f"vps-{task_id}")
    storage.joinpath(*names[:level]).mkdir(parents=True)
    victim.mkdir()
    storage.joinpath(*names[: level + 1]).symlink_to(victim)
    image, repository = await busybox_image(lab.api), snapshot_repository(task_id)
    await tag_image(lab.api, image, repository, "5")
    try:
        with pytest.raises(EngineFault, match="cannot be written"):
            await lab.engine.vps.export_snapshot(task_id, 5, storage.joinpath(*names, "5.tar"))
    finally:
        await remove_image(lab.api, f"{repository}:5")
    assert list(victim.iterdir()) == []


@pytest.mark.parametrize("name", ["logs", "shared_data"])
def test_the_host_takes_no_link_for_a_folder_of_shared_storage(tmp_path: Path, name: str) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / name).symlink_to(tmp_path / "victim")
    assert "is a link" in str(prepare_shared_storage(tmp_path / "shared", "cluster").fault)
