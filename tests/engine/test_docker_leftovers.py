"""What a crash or a changed setting left behind is cleared by the next runner; what works is not touched."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kohakuriver.models.errors import NotFound
from support.engines.labs import DockerLab, abandon, docker_lab, ignore, until

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]

SANDBOX = "kohakuriver.sandbox"


@pytest.fixture
async def lab(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path, pool_size=getattr(request, "param", 1)) as real:
        yield real


async def network_names(lab: DockerLab) -> set[str]:
    filters = json.dumps({"label": [f"kohakuriver.node={lab.node}"]})
    return {row["Name"] for row in await lab.api.json("GET", "networks", params={"filters": filters})}


async def until_ready(lab: DockerLab) -> None:
    async def there() -> bool:
        rows = await lab.containers(SANDBOX)
        return len(rows) == 1 and rows[0]["State"] == "running" and bool(lab.engine.pool.idle)

    await until(there)


async def renamed(lab: DockerLab) -> str:
    """A new runner with another DOCKER_NETWORK_NAME takes over, as after a crash."""
    await abandon(lab.engine)
    name = f"{lab.node}-b"
    other = lab.settings.network_subnet.replace("10.23", "10.24")
    lab.engine = lab.new_engine(
        network_name=name, network_subnet=other, network_gateway=other.replace("0/24", "1")
    )
    await lab.engine.open()
    return name


async def test_a_network_of_an_old_name_goes_and_so_do_the_idle_sandboxes_on_it(lab: DockerLab) -> None:
    await until_ready(lab)
    (old,) = await lab.containers(SANDBOX)
    name = await renamed(lab)
    try:
        await until_ready(lab)
        assert await network_names(lab) == {name}
        (fresh,) = await lab.containers(SANDBOX)
        assert fresh["Id"] != old["Id"]
        assert list(fresh["NetworkSettings"]["Networks"]) == [name]
    finally:
        await lab.engine.close()
        await lab.api.json("DELETE", f"networks/{name}")


async def test_a_network_of_an_old_name_stays_while_work_runs_on_it(lab: DockerLab) -> None:
    spec = lab.spec("/bin/sleep", "60")
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    name = await renamed(lab)
    try:
        assert await network_names(lab) == {name, lab.settings.network_name}
        await lab.engine.stop(spec.task_id, 1, 0)
        await lab.engine.remove(spec.task_id, 1)
    finally:
        await lab.engine.close()
        await lab.api.json("DELETE", f"networks/{name}")


async def test_files_of_what_is_gone_are_cleared_and_of_what_runs_are_kept(lab: DockerLab) -> None:
    spec = lab.spec("/bin/sleep", "60")
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    await until_ready_beside_work(lab)
    state = lab.settings.state_dir
    (state / "net" / "12345").mkdir()
    (state / "net" / "12345" / "hosts").write_text("x")
    (state / "sandboxes" / "gone.json").write_text("{}")
    records = {path.name for path in (state / "sandboxes").iterdir()} - {"gone.json"}
    await lab.restart()
    assert [path.name for path in (state / "net").iterdir()] == [str(spec.task_id)]
    assert {path.name for path in (state / "sandboxes").iterdir()} >= records
    assert not (state / "sandboxes" / "gone.json").exists()
    await lab.engine.remove(spec.task_id, 1)
    assert list((state / "net").iterdir()) == []


async def until_ready_beside_work(lab: DockerLab) -> None:
    async def there() -> bool:
        return len(lab.engine.pool.idle) == 1

    await until(there)


async def test_a_sandbox_whose_workload_was_removed_by_hand_is_not_lost(lab: DockerLab) -> None:
    spec = lab.spec("/bin/sleep", "60")
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    await until_ready_beside_work(lab)
    for row in await lab.containers(f"kohakuriver.task_id={spec.task_id}"):
        await lab.api.json("DELETE", f"containers/{row['Id']}", params={"force": "1"})
    await lab.restart()
    with pytest.raises(NotFound):
        await lab.engine.wait(spec)
    await lab.engine.close()
    assert await lab.containers() == []
    lab.engine = lab.new_engine()
    await lab.engine.open()


@pytest.mark.parametrize("lab", [0], indirect=True)
async def test_a_network_that_was_pruned_is_made_again(lab: DockerLab) -> None:
    """`docker system prune` takes networks that nothing uses just then."""
    await lab.api.json("DELETE", f"networks/{lab.settings.network_name}")
    spec = lab.spec("/bin/echo", "fine")
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    await lab.engine.wait(spec)
    assert spec.stdout_path.read_text() == "fine\n"
    await lab.engine.remove(spec.task_id, 1)
