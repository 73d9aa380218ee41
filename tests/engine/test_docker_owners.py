"""Whose containers are whose on one engine: nodes, clusters, and what earlier versions made."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kohakuriver.models.errors import Conflict, InvalidInput, NotFound
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.docker.docker_engine import DockerEngine
from kohakuriver.runner.engines.docker.labels import Owner
from kohakuriver.runner.engines.docker.workloads.containers import WorkloadContainers
from support.engines.labs import DockerLab, abandon, docker_lab, ignore, until

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path, pool_size=1) as lab:
        yield lab


async def opened(lab: DockerLab, *clusters: str, **settings: str) -> DockerEngine:
    """Another runner with the same node name, of these clusters, on the same engine."""
    folder = lab.folder / f"state-{'-'.join(clusters) or 'earlier'}"
    folder.mkdir(exist_ok=True)
    engine = lab.new_engine(cluster_ids=clusters, state_dir=folder, **settings)
    try:
        await engine.open()
    except BaseException:
        await abandon(engine)
        raise
    return engine


def network_beside(lab: DockerLab) -> dict[str, str]:
    """The last quarter of what the lab's own could have had, as a network of its own."""
    first, second, third = lab.settings.network_gateway.split(".")[:3]
    base = f"{first}.{int(second) + 8}.{third}"
    return {
        "network_name": f"{lab.node}-b",
        "network_subnet": f"{base}.0/24",
        "network_gateway": f"{base}.1",
    }


async def test_a_runner_of_another_cluster_leaves_workloads_and_sandboxes_alone(lab: DockerLab) -> None:
    spec = lab.spec("sleep", "600")
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, spec.attempt)
    await until(lambda: _ready_sandboxes(lab, 2))
    before = {row["Id"] for row in await lab.containers()}
    beside = network_beside(lab)
    other = await opened(lab, "cluster-b", **beside)
    try:
        assert await other.list_workloads() == []
        with pytest.raises(Conflict, match="did not make"):
            await other.stop(spec.task_id, spec.attempt, 1)
        assert before <= {row["Id"] for row in await lab.containers()}
    finally:
        await other.close()
        await lab.api.json("DELETE", f"networks/{beside['network_name']}")
    assert before <= {row["Id"] for row in await lab.containers()}
    assert [each.task_id for each in await lab.engine.list_workloads()] == [spec.task_id]


async def _ready_sandboxes(lab: DockerLab, count: int) -> bool:
    rows = await lab.containers("kohakuriver.sandbox=true")
    return len([row for row in rows if row["State"] == "running"]) >= count


async def test_the_network_of_another_cluster_is_refused(lab: DockerLab) -> None:
    """Its filters are that runner's, and two would put theirs in place of each other's."""
    await until(lambda: _ready_sandboxes(lab, 1))
    with pytest.raises(InvalidInput, match="made by a runner of another cluster"):
        await opened(lab, "cluster-b")


async def test_what_an_earlier_version_or_the_same_host_made_is_taken_up(lab: DockerLab) -> None:
    beside = network_beside(lab)
    earlier = await opened(lab, **beside)
    specs = []
    for engine in (earlier, lab.engine):
        specs.append(lab.spec("sleep", "600"))
        await engine.create(specs[-1], ignore)
        await engine.start(specs[-1].task_id, 1)
    await earlier.close()
    anew = await opened(lab, "cluster-c", *lab.settings.cluster_ids)
    try:
        found = {each.task_id for each in await anew.list_workloads()}
        assert found == {spec.task_id for spec in specs}
        await anew.remove(specs[0].task_id, 1)
    finally:
        await anew.close()
        await lab.clear()
        with contextlib.suppress(NotFound):
            await lab.api.json("DELETE", f"networks/{beside['network_name']}")


async def test_a_container_names_its_cluster(lab: DockerLab) -> None:
    spec = lab.spec("sleep", "600")
    await lab.engine.create(spec, ignore)
    name = f"kohakuriver-task-{spec.task_id}"
    labels = (await lab.api.json("GET", f"containers/{name}/json"))["Config"]["Labels"]
    assert (labels["kohakuriver.cluster"],) == lab.settings.cluster_ids
    with pytest.raises(Conflict):
        await WorkloadContainers(lab.api, Owner(lab.node, ["cluster-b"])).inspect(name)


async def test_what_stands_under_another_nodes_name_is_shown_and_left_alone(lab: DockerLab) -> None:
    spec = lab.spec("sleep", "600", cores=1, memory_bytes=32 << 20)
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    await lab.engine.close()
    folder = lab.folder / "renamed"
    folder.mkdir()
    renamed = lab.new_engine(node_name=f"{lab.node}-renamed", state_dir=folder)
    await renamed.open()
    try:
        assert await renamed.list_workloads() == []
        [found] = renamed.orphans()
        assert (found.node, found.task_id, found.attempt) == (lab.node, spec.task_id, 1)
        assert (found.cores, found.memory_bytes, found.state) == (1, 32 << 20, WorkloadState.RUNNING)
        with pytest.raises(Conflict):
            await renamed.remove(spec.task_id, 1)
        [taken] = await renamed.take_over([lab.node])
        assert (taken.task_id, taken.state) == (spec.task_id, WorkloadState.RUNNING)
        assert renamed.orphans() == []
    finally:
        await renamed.close()
    again = lab.new_engine(node_name=f"{lab.node}-renamed", state_dir=folder)
    await again.open()
    try:
        assert [each.task_id for each in await again.list_workloads()] == [spec.task_id]
        await again.stop(spec.task_id, 1, 0.1)
        assert (await again.wait(spec)).exit_code in (137, 143)
        await again.remove(spec.task_id, 1)
        assert await again.list_workloads() == []
    finally:
        await again.close()
