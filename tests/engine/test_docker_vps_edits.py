"""What users change in files that are mounted into a VPS: /etc/hosts, /etc/hostname, /etc/resolv.conf."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kohakuriver.models.vps import FROM_IMAGE
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.contract.vps import KeptSnapshots
from kohakuriver.runner.engines.docker.snapshots import one_layer
from support.engines.labs import DockerLab, docker_lab

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(240)]

CHANGE = """
echo '10.9.9.9 db' >> /etc/hosts
echo studio > /etc/hostname
echo 'options timeout:1' >> /etc/resolv.conf
"""


@pytest.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path_factory.mktemp("engine"), pool_size=0) as real:
        yield real


async def change(lab: DockerLab, spec: WorkloadSpec, script: str = CHANGE) -> None:
    assert await lab.run(spec, "sh", "-c", script) == (0, "")


async def stopped(lab: DockerLab, spec: WorkloadSpec) -> int:
    """As a stop does it; returns the time of the snapshot."""
    kept = KeptSnapshots(9)
    at = (await lab.engine.vps.take_snapshot(spec.task_id, spec.attempt, "", kept)).at
    await lab.engine.remove(spec.task_id, spec.attempt)
    return at


async def hosts(lab: DockerLab, spec: WorkloadSpec) -> list[str]:
    return (await lab.got(spec, "/etc/hosts") or "").splitlines()


async def test_they_stay_over_a_stop_an_archive_and_a_restart_at_another_address(
    lab: DockerLab, tmp_path: Path
) -> None:
    spec = lab.vps(hostname="workbench")
    address = await lab.begin_vps(spec)
    resolv = await lab.got(spec, "/etc/resolv.conf")
    await change(lab, spec)
    at = await stopped(lab, spec)
    assert list((lab.settings.state_dir / "net").iterdir()) == []
    archive = tmp_path / "a" / "b" / f"{at}.tar"
    await lab.engine.vps.export_snapshot(spec.task_id, at, archive)
    await lab.engine.vps.delete_snapshot(spec.task_id, at)
    await lab.engine.vps.import_snapshot(spec.task_id, at, archive)
    thief = lab.vps(address=address)
    assert await lab.begin_vps(thief) == address
    again = lab.vps(spec.task_id, 2, hostname="workbench", address=address)
    now = await lab.begin_vps(again)
    assert now != address
    found = await hosts(lab, again)
    assert found[-2:] == [f"{now}\tworkbench", "10.9.9.9 db"]
    assert address not in {line.split()[0] for line in found}
    assert await lab.got(again, "/etc/hostname") == "studio\n"
    assert await lab.got(again, "/etc/resolv.conf") == f"{resolv}options timeout:1\n"
    labels = (await lab.containers(f"kohakuriver.task_id={spec.task_id}"))[0]["Labels"]
    assert labels["kohakuriver.edits"] == "", "lists of containers do not carry it"
    await stopped(lab, again)
    third = lab.vps(spec.task_id, 3, hostname="workbench", address=now)
    assert await lab.begin_vps(third) == now
    assert await hosts(lab, third) == found
    for one in (third, thief):
        await lab.engine.remove(one.task_id, one.attempt)


async def test_the_image_itself_begins_with_none_of_them(lab: DockerLab) -> None:
    spec = lab.vps()
    await lab.begin_vps(spec)
    before = await hosts(lab, spec)
    await change(lab, spec)
    await stopped(lab, spec)
    again = lab.vps(spec.task_id, 2, restore=FROM_IMAGE)
    await lab.begin_vps(again)
    assert [line.split()[1:] for line in await hosts(lab, again)] == [line.split()[1:] for line in before]
    await lab.engine.remove(spec.task_id, 2)


async def test_a_snapshot_in_one_layer_has_them_as_well(
    lab: DockerLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_layer, "MOST_LAYERS", 1)
    spec = lab.vps()
    await lab.begin_vps(spec)
    await change(lab, spec)
    await stopped(lab, spec)
    again = lab.vps(spec.task_id, 2)
    await lab.begin_vps(again)
    assert "10.9.9.9 db" in await hosts(lab, again)
    await lab.engine.remove(spec.task_id, 2)


async def test_they_stay_where_a_vps_that_fell_goes_on_at_another_address(lab: DockerLab) -> None:
    spec = lab.vps(hostname="workbench")
    address = await lab.begin_vps(spec)
    await change(lab, spec)
    facts = await lab.api.json("GET", f"containers/kohakuriver-vps-{spec.task_id}/json")
    await lab.engine.stop(spec.task_id, 1, 5)
    await lab.engine.wait(spec)
    sandbox = facts["HostConfig"]["NetworkMode"].removeprefix("container:")
    await lab.api.json("POST", f"containers/{sandbox}/kill")
    thief = lab.vps(address=address)
    assert await lab.begin_vps(thief) == address
    await lab.engine.vps.start_again(spec.task_id, 1)
    assert spec.session is not None
    now = await lab.engine.vps.set_up(spec.task_id, 1, spec.session)
    assert now != address
    assert (await hosts(lab, spec))[-2:] == [f"{now}\tworkbench", "10.9.9.9 db"]
    assert await lab.got(spec, "/etc/hostname") == "studio\n"
    for one in (spec, thief):
        await lab.engine.remove(one.task_id, 1)


async def test_a_file_without_end_costs_neither_the_runner_nor_the_snapshot_more_than_a_bound(
    lab: DockerLab,
) -> None:
    spec = lab.vps()
    await lab.begin_vps(spec)
    await change(
        lab, spec, "echo > /etc/hosts && dd if=/dev/null of=/etc/hosts bs=1M seek=1000000 2>/dev/null"
    )
    await stopped(lab, spec)
    again = lab.vps(spec.task_id, 2)
    address = await lab.begin_vps(again)
    found = await hosts(lab, again)
    assert f"{address}\tbox" in found
    assert "larger than 64 KiB" in found[-1]
    await lab.engine.remove(spec.task_id, 2)
