"""GPU requests on the real engine, which takes them because the hook's stand-in is on its PATH."""

from pathlib import Path

import pytest

from kohakuriver.models.errors import EngineFault
from kohakuriver.models.resources import Gpu
from support.engines.labs import docker_lab, ignore
from support.engines.private_docker import NVIDIA_HOOK_DIR, private_dockerd

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]

GPUS = (Gpu(0, "GPU-aaaa", "A", 1 << 30), Gpu(3, "GPU-dddd", "D", 1 << 30))


async def test_gpus_are_asked_for_by_uuid_and_no_variable_of_the_task_changes_that(tmp_path: Path) -> None:
    with private_dockerd(tmp_path, extra_path=[NVIDIA_HOOK_DIR]) as daemon:
        async with docker_lab(tmp_path / "lab", url=daemon.url) as lab:
            spec = lab.spec("/bin/env", gpus=GPUS, env=(("NVIDIA_VISIBLE_DEVICES", "all"),))
            await lab.engine.create(spec, ignore)
            await lab.engine.start(spec.task_id, 1)
            assert (await lab.engine.wait(spec)).exit_code == 0
            await lab.engine.remove(spec.task_id, 1)
            lines = spec.stdout_path.read_text().splitlines()
    assert [line for line in lines if line.startswith("NVIDIA_VISIBLE")] == [
        "NVIDIA_VISIBLE_DEVICES=GPU-aaaa,GPU-dddd"
    ]


async def test_an_engine_without_gpu_support_is_said_to_be_one(tmp_path: Path) -> None:
    with private_dockerd(tmp_path) as daemon:
        async with docker_lab(tmp_path / "lab", url=daemon.url) as lab:
            spec = lab.spec("/bin/true", gpus=GPUS)
            await lab.engine.create(spec, ignore)
            with pytest.raises(EngineFault, match=r"cannot give GPUs to containers.*nvidia-container"):
                await lab.engine.start(spec.task_id, 1)
            await lab.engine.remove(spec.task_id, 1)
