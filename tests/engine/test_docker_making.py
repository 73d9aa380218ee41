"""A making that fails or is cut off at one of its steps leaves nothing, and the workload can be made then."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.dockerapi.images import remove_image
from kohakuriver.models.errors import EngineFault
from kohakuriver.models.ids import TaskId
from kohakuriver.models.names import LABEL_SNAPSHOT
from kohakuriver.runner.engines.contract.spec import UserIds, WorkloadSpec
from kohakuriver.runner.engines.docker import docker_engine
from kohakuriver.runner.engines.docker.inside.own_mounts import OwnMounts
from kohakuriver.runner.engines.steps import Step, take_steps
from support.engines.docker_images import changed_image
from support.engines.labs import DockerLab, docker_lab, ignore, until

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(240)]

SANDBOX = "kohakuriver.sandbox"
STEPS = ("image", "sandbox", "files", "container")
SOMEBODY = UserIds(4321, 4321)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[DockerLab]:
    (homes := tmp_path / "homes").mkdir()
    async with docker_lab(tmp_path, pool_size=1, homes_folder=homes, idle_trim_seconds=600) as real:
        yield real


@pytest.fixture
async def image_with_volume(lab: DockerLab) -> AsyncIterator[str]:
    """A VPS that begins from it gets an image of its own."""
    name = f"river-test/volume:{lab.node}"
    await changed_image(lab.api, name, Volumes={"/data": {}})
    yield name
    await remove_image(lab.api, name)


async def idle_sandboxes(lab: DockerLab) -> set[str]:
    """Wait until all sandboxes that there are stand idle; return their ids."""
    idle: set[str] = set()

    async def are_all() -> bool:
        rows = await lab.containers(SANDBOX)
        idle.clear()
        idle.update(sandbox.id for sandbox in lab.engine.pool.idle)
        return bool(idle) and {row["Id"] for row in rows} == idle

    await until(are_all)
    return idle


async def images_of(lab: DockerLab, task_id: TaskId) -> list[Any]:
    filters = json.dumps({"label": [f"{LABEL_SNAPSHOT}={task_id}"]})
    return list(await lab.api.json("GET", "images/json", params={"filters": filters}))


async def assert_nothing_left(lab: DockerLab, spec: WorkloadSpec) -> None:
    assert await lab.containers(f"kohakuriver.task_id={spec.task_id}") == []
    assert await lab.engine.list_workloads() == []
    assert lab.settings.homes_folder is not None
    for folder in (lab.settings.state_dir / "net", lab.settings.homes_folder):
        assert not folder.exists() or list(folder.iterdir()) == []
    assert await images_of(lab, spec.task_id) == []


class Spoilt:
    """Has the making of workloads go wrong when a step has had its effect; `reached` is set then."""

    def __init__(self, name: str, happens: Callable[[], Awaitable[object]]) -> None:
        self.reached = asyncio.Event()
        self._name = name
        self._happens = happens

    async def take(self, steps: Sequence[Step], task_id: TaskId) -> None:
        assert [step.name for step in steps] == list(STEPS)
        await take_steps([self._spoilt(step) if step.name == self._name else step for step in steps], task_id)

    def _spoilt(self, step: Step) -> Step:
        async def do() -> None:
            await step.do()
            self.reached.set()
            await self._happens()

        return replace(step, do=do)


async def fail() -> None:
    raise EngineFault("it was spoilt")


async def hang() -> None:
    await asyncio.Event().wait()


async def see_it_undone(
    lab: DockerLab, spec: WorkloadSpec, name: str, is_cut_off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = await idle_sandboxes(lab)
    spoilt = Spoilt(name, hang if is_cut_off else fail)
    with monkeypatch.context() as patch:
        patch.setattr(docker_engine, "take_steps", spoilt.take)
        making = asyncio.create_task(lab.engine.create(spec, ignore))
        if is_cut_off:
            await spoilt.reached.wait()
            making.cancel()
        with pytest.raises(asyncio.CancelledError if is_cut_off else EngineFault):
            await making
    await assert_nothing_left(lab, spec)
    assert idle <= await idle_sandboxes(lab)
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    await lab.engine.stop(spec.task_id, 1, 0)
    await lab.engine.remove(spec.task_id, 1)
    await assert_nothing_left(lab, spec)


@pytest.mark.parametrize("is_cut_off", [False, True], ids=["failed", "cut-off"])
@pytest.mark.parametrize("name", STEPS)
async def test_of_a_task_nothing_is_left(
    lab: DockerLab, name: str, is_cut_off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await see_it_undone(lab, lab.spec("/bin/sleep", "600", user=SOMEBODY), name, is_cut_off, monkeypatch)


@pytest.mark.parametrize("is_cut_off", [False, True], ids=["failed", "cut-off"])
@pytest.mark.parametrize("name", STEPS)
async def test_of_a_vps_nothing_is_left(
    lab: DockerLab, image_with_volume: str, name: str, is_cut_off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await see_it_undone(lab, lab.vps(image=image_with_volume), name, is_cut_off, monkeypatch)


async def test_files_that_a_thread_still_writes_are_waited_for_and_removed(
    lab: DockerLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread goes on although who waited for it was cut off."""
    is_writing, may_go_on = threading.Event(), threading.Event()
    prepare = OwnMounts.prepare

    def slowly(*arguments: Any) -> Any:
        is_writing.set()
        may_go_on.wait(60)
        return prepare(*arguments)

    monkeypatch.setattr(OwnMounts, "prepare", slowly)
    spec = lab.spec("/bin/true", user=SOMEBODY)
    making = asyncio.create_task(lab.engine.create(spec, ignore))
    await asyncio.to_thread(is_writing.wait, 60)
    making.cancel()
    done, _ = await asyncio.wait([making], timeout=0.3)
    assert not done, "it left while its files were still being written"
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await making
    await assert_nothing_left(lab, spec)


async def test_a_sandbox_that_its_container_may_still_hold_is_given_to_nobody(
    lab: DockerLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine did not say whether the container is gone."""
    idle = await idle_sandboxes(lab)
    workloads = lab.engine.workloads
    inspect = workloads.inspect

    async def unanswered(_reference: str) -> Any:
        raise EngineFault("the engine does not say")

    with monkeypatch.context() as patch:
        patch.setattr(docker_engine, "take_steps", Spoilt("container", fail).take)
        patch.setattr(workloads, "inspect", unanswered)
        with pytest.raises(EngineFault, match="it was spoilt"):
            await lab.engine.create(spec := lab.spec("/bin/true"), ignore)
    assert workloads.inspect == inspect
    assert not idle & await idle_sandboxes(lab)
    await lab.engine.create(spec, ignore)
    await lab.engine.remove(spec.task_id, 1)
