"""The disk of the engine itself is full: said in plain words, and over as soon as there is room."""

from pathlib import Path

import pytest

from kohakuriver.runner.engines.contract.faults import NoDiskSpace
from kohakuriver.runner.monitor.disk_space import Place, fault_of
from support.engines.labs import docker_lab, ignore, until
from support.engines.private_docker import own_daemon
from support.machine.small_disk import small_disk

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(240)]


async def test_an_engine_without_room_says_so_and_works_again_once_there_is_some(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk, own_daemon(disk.path) as daemon:
        async with docker_lab(tmp_path / "lab", pool_size=1, url=daemon.url) as lab:
            first = lab.spec("/bin/echo", "first")
            await lab.engine.create(first, ignore)

            async def pool_is_full() -> bool:
                return bool(lab.engine.pool.idle)

            await until(pool_is_full)
            disk.fill()
            place = Place("the Docker engine's folder", lab.engine.data_root)
            assert "is full" in (fault_of(place) or "")
            with pytest.raises(NoDiskSpace, match=r"no room left on its disk.*docker system df"):
                await lab.engine.create(lab.spec("/bin/echo", "second"), ignore)
            disk.empty()
            assert fault_of(place) is None

            async def well() -> bool:
                return lab.engine.faults() == []

            await until(well, 60)
            for spec in (first, lab.spec("/bin/echo", "first")):
                await lab.engine.create(spec, ignore)
                await lab.engine.start(spec.task_id, 1)
                await lab.engine.wait(spec)
                assert spec.stdout_path.read_text() == "first\n"
                await lab.engine.remove(spec.task_id, 1)
