"""Snapshots as images: what they look like, what is left of them, full disks, and archives of others."""

import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.models.errors import EngineFault
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.contract.faults import EngineFull
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.contract.vps import KeptSnapshots
from kohakuriver.runner.engines.docker.snapshots import one_layer
from support.engines.docker_images import busybox_image, changed_image
from support.engines.labs import DockerLab, docker_lab, ignore
from support.engines.private_docker import own_daemon
from support.machine.small_disk import small_disk

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DockerLab]:
    async with docker_lab(tmp_path_factory.mktemp("engine"), pool_size=0) as real:
        yield real


async def begin(lab: DockerLab, spec: WorkloadSpec) -> None:
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, spec.attempt)


async def snapshot(lab: DockerLab, spec: WorkloadSpec, keep: int = 9) -> int:
    return (await lab.engine.vps.take_snapshot(spec.task_id, spec.attempt, "", KeptSnapshots(keep))).at


async def images(lab: DockerLab, spec: WorkloadSpec) -> list[dict[str, Any]]:
    """All of the VPS that the engine holds, with a name or without."""
    filters = json.dumps({"label": [f"kohakuriver.snapshot={spec.task_id}"]})
    found: list[dict[str, Any]] = await lab.api.json(
        "GET", "images/json", params={"filters": filters, "all": "1"}
    )
    return found


async def test_a_container_of_a_snapshot_is_taken_for_no_workload(lab: DockerLab) -> None:
    spec = lab.vps()
    await begin(lab, spec)
    image = f"kohakuriver-snapshot/vps-{spec.task_id}:{await snapshot(lab, spec)}"
    await lab.engine.remove(spec.task_id, 1)
    made = await lab.api.json("POST", "containers/create", json={"Image": image, "Cmd": ["/bin/true"]})
    try:
        assert await lab.engine.list_workloads() == []
        await lab.restart()
        assert (await lab.api.json("GET", f"containers/{made['Id']}/json"))["Id"] == made["Id"]
    finally:
        await lab.api.json("DELETE", f"containers/{made['Id']}")
    await lab.engine.vps.delete_snapshot(spec.task_id, int(image.rpartition(":")[2]))
    assert await images(lab, spec) == []


async def test_nothing_is_left_of_a_snapshot_that_was_deleted_under_its_vps(lab: DockerLab) -> None:
    spec = lab.vps()
    await begin(lab, spec)
    first = await snapshot(lab, spec)
    await lab.engine.remove(spec.task_id, 1)
    again = lab.vps(spec.task_id, attempt=2)
    await begin(lab, again)
    second = await snapshot(lab, again, keep=1)
    assert second > first
    await lab.engine.vps.delete_snapshot(spec.task_id, second)
    assert len(await images(lab, spec)) == 1, "the VPS runs and stands on it"
    await lab.engine.remove(spec.task_id, 2)
    assert await images(lab, spec) == []


async def test_a_removal_that_was_cut_off_is_completed_by_the_next(lab: DockerLab) -> None:
    spec = lab.vps()
    await begin(lab, spec)
    at = await snapshot(lab, spec)
    await lab.engine.remove(spec.task_id, 1)
    again = lab.vps(spec.task_id, attempt=2)
    await begin(lab, again)
    await lab.engine.vps.delete_snapshot(spec.task_id, at)
    name = f"containers/kohakuriver-vps-{spec.task_id}"
    sandbox = (await lab.api.json("GET", f"{name}/json"))["HostConfig"]["NetworkMode"].partition(":")[2]
    await lab.api.json("DELETE", name, params={"force": "1"})
    await lab.restart()
    assert len(await images(lab, spec)) == 1
    await lab.engine.remove(spec.task_id, 2)
    assert await images(lab, spec) == []
    assert sandbox not in {row["Id"] for row in await lab.containers("kohakuriver.sandbox")}


async def test_many_rounds_end_in_a_snapshot_that_can_be_started(lab: DockerLab) -> None:
    spec = lab.vps()
    for attempt in range(1, 4):
        again = lab.vps(spec.task_id, attempt)
        await begin(lab, again)
        assert (await lab.got(again, "/count") or "") == "x" * (attempt - 1)
        await lab.put(again, "/count", "x" * attempt)
        at = await snapshot(lab, again, keep=1)
        await lab.engine.remove(spec.task_id, attempt)
    await lab.engine.vps.delete_snapshot(spec.task_id, at)
    assert await images(lab, spec) == []


async def test_layers_do_not_pile_up_without_end(lab: DockerLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_layer, "MOST_LAYERS", 3)
    spec = lab.vps()
    depths, sizes = [], []
    for attempt in range(1, 5):
        again = replace(
            lab.vps(spec.task_id, attempt), env=(("QUOTED", 'a "b" $c \\ d'),), working_dir="/tmp"
        )
        await begin(lab, again)
        await lab.put(again, f"/file-{attempt}", "x" * 50_000)
        made = await lab.engine.vps.take_snapshot(
            spec.task_id, attempt, f"message {attempt}", KeptSnapshots(1)
        )
        assert [one.state for one in await lab.engine.list_workloads()] == [WorkloadState.RUNNING]
        await lab.engine.remove(spec.task_id, attempt)
        facts = await lab.api.json("GET", f"images/kohakuriver-snapshot/vps-{spec.task_id}:{made.at}/json")
        depths.append(len(facts["RootFS"]["Layers"]))
        sizes.append(made.size_bytes)
        assert made.message == f"message {attempt}"
        assert 'QUOTED=a "b" $c \\ d' in facts["Config"]["Env"]
    assert depths == [2, 3, 1, 2]
    assert sizes[2] > 3 * 50_000, "one that holds all says so"
    assert 50_000 <= sizes[3] < 100_000
    last = lab.vps(spec.task_id, attempt=9)
    await begin(lab, last)
    assert await lab.got(last, "/file-1") == "x" * 50_000
    await lab.engine.remove(spec.task_id, 9)
    await lab.engine.vps.delete_snapshot(spec.task_id, made.at)
    assert await images(lab, spec) == []


async def test_what_an_image_declares_as_a_volume_is_in_the_snapshot(lab: DockerLab) -> None:
    image = f"river-test/volume:{lab.node}"
    await changed_image(lab.api, image, Volumes={"/data": {}}, Env=["OF=image"])
    spec = lab.vps(image=image)
    try:
        await begin(lab, spec)
        await lab.put(spec, "/data/file", "kept")
        assert await lab.run(spec, "sh", "-c", "echo $OF") == (0, "image\n")
        at = await snapshot(lab, spec)
        await lab.engine.remove(spec.task_id, 1)
        again = lab.vps(spec.task_id, 2, image=image)
        await begin(lab, again)
        assert await lab.got(again, "/data/file") == "kept"
        await lab.engine.remove(spec.task_id, 2)
        await lab.engine.vps.delete_snapshot(spec.task_id, at)
        assert await images(lab, spec) == []
    finally:
        await lab.api.json("DELETE", f"images/{image}")


async def test_a_snapshot_that_finds_no_room_leaves_the_vps_running_and_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 96) as disk, own_daemon(disk.path) as daemon:
        async with docker_lab(tmp_path / "lab", pool_size=0, url=daemon.url) as lab:
            spec = lab.vps()
            await begin(lab, spec)
            kept = await snapshot(lab, spec)
            await lab.run(spec, "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=8")
            disk.fill(leave_bytes=2 << 20)
            with pytest.raises(EngineFull, match="no room on its disk for a snapshot"):
                await snapshot(lab, spec, keep=1)
            assert await lab.run(spec, "echo", "alive") == (0, "alive\n")
            found = await lab.engine.list_workloads()
            assert [one.state for one in found] == [WorkloadState.RUNNING]
            listed = await lab.engine.vps.list_snapshots(spec.task_id)
            assert [one.at for one in listed] == [kept]
            assert len(await images(lab, spec)) == 1
            disk.empty()
            assert await snapshot(lab, spec) > kept
            await lab.engine.remove(spec.task_id, 1)


def changed_index(archive: Path, path: Path, change: Callable[[list[dict[str, Any]]], None]) -> Path:
    """A copy of an image archive, with another index."""
    with tarfile.open(archive) as source, tarfile.open(path, "w") as target:
        for member in source:
            content = source.extractfile(member)
            data = content.read() if content else b""
            if member.name == "manifest.json":
                index = json.loads(data)
                change(index)
                data = json.dumps(index).encode()
                member.size = len(data)
            if member.name != "repositories":
                target.addfile(member, io.BytesIO(data) if content else None)
    return path


async def exported(lab: DockerLab, reference: str, path: Path) -> Path:
    async with lab.api.stream("GET", "images/get", params={"names": reference}) as answer:
        path.write_bytes(await answer.read())
    return path


async def test_an_archive_of_something_else_is_refused_and_leaves_nothing(
    lab: DockerLab, tmp_path: Path
) -> None:
    spec = lab.vps()
    name = f"kohakuriver-snapshot/vps-{spec.task_id}:5"
    busybox = await busybox_image(lab.api)
    honest = await exported(lab, busybox, tmp_path / "busybox.tar")
    before = {row["Id"] for row in await lab.api.json("GET", "images/json", params={"all": "1"})}

    def pretend(index: list[dict[str, Any]]) -> None:
        index[0]["RepoTags"] = [name]

    def more(index: list[dict[str, Any]]) -> None:
        index[0]["RepoTags"] = [name, "kohakuriver/base:base"]

    def twice(index: list[dict[str, Any]]) -> None:
        index.append({**index[0], "RepoTags": [name]})

    def no_list(index: list[dict[str, Any]]) -> None:
        index[0]["RepoTags"] = {"a": 1}

    archives = [honest] + [
        changed_index(honest, tmp_path / change.__name__, change)
        for change in (pretend, more, twice, no_list)
    ]
    for archive in archives:
        with pytest.raises(EngineFault, match="no snapshot of this VPS"):
            await lab.engine.vps.import_snapshot(spec.task_id, 5, archive)
    assert await lab.engine.vps.list_snapshots(spec.task_id) == []
    after = {row["Id"] for row in await lab.api.json("GET", "images/json", params={"all": "1"})}
    assert after == before
    assert busybox in (await lab.api.json("GET", f"images/{busybox}/json"))["RepoTags"]


async def test_a_foreign_image_under_the_right_name_is_removed_again(lab: DockerLab, tmp_path: Path) -> None:
    spec = lab.vps()
    await begin(lab, spec)
    await lab.put(spec, "/file", "of somebody else")
    params = {"container": f"kohakuriver-vps-{spec.task_id}", "repo": "river-test/foreign", "tag": "1"}
    foreign = (await lab.api.json("POST", "commit", params=params, json={}))["Id"]
    await lab.engine.remove(spec.task_id, 1)
    archive = await exported(lab, "river-test/foreign:1", tmp_path / "foreign.tar")
    await lab.api.json("DELETE", "images/river-test/foreign:1")

    def pretend(index: list[dict[str, Any]]) -> None:
        index[0]["RepoTags"] = [f"kohakuriver-snapshot/vps-{spec.task_id}:5"]

    with pytest.raises(EngineFault, match="not made as a snapshot of this VPS"):
        await lab.engine.vps.import_snapshot(
            spec.task_id, 5, changed_index(archive, tmp_path / "pretending.tar", pretend)
        )
    assert foreign not in {row["Id"] for row in await lab.api.json("GET", "images/json")}


async def test_an_archive_is_private_and_a_failed_one_leaves_no_draft(lab: DockerLab, tmp_path: Path) -> None:
    spec = lab.vps()
    await begin(lab, spec)
    await lab.run(spec, "dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=8")
    at = await snapshot(lab, spec)
    await lab.engine.vps.export_snapshot(spec.task_id, at, tmp_path / "made" / "5.tar")
    assert (tmp_path / "made" / "5.tar").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
    with small_disk(tmp_path / "disk", 4) as disk:
        with pytest.raises(Exception, match="cannot be written"):
            await lab.engine.vps.export_snapshot(spec.task_id, at, disk.path / "5.tar")
        assert list(disk.path.iterdir()) == []
    await lab.engine.remove(spec.task_id, 1)
    await lab.engine.vps.delete_snapshot(spec.task_id, at)


def _room(path: Path) -> int:
    return path.stat().st_blocks * 512


async def test_sparse_files_of_a_vps_stay_sparse_in_its_snapshots_and_their_archives(
    lab: DockerLab, tmp_path: Path
) -> None:
    size = 64 << 20
    spec = lab.vps()
    await begin(lab, spec)
    script = f"echo begin > /disk.img && dd if=/bin/busybox of=/disk.img bs=1 count=100 seek={size - 100}"
    process = await lab.api.json("GET", f"containers/kohakuriver-vps-{spec.task_id}/json")
    upper = Path(process["GraphDriver"]["Data"]["UpperDir"])
    status, said = await lab.run(spec, "sh", "-c", script)
    assert status == 0, said
    assert _room(upper / "disk.img") < 1 << 20
    at = await snapshot(lab, spec)
    name = f"kohakuriver-snapshot/vps-{spec.task_id}:{at}"
    image = await lab.api.json("GET", f"images/{name}/json")
    kept = Path(image["GraphDriver"]["Data"]["UpperDir"]) / "disk.img"
    assert kept.read_bytes() == (upper / "disk.img").read_bytes()
    # The engine keeps whole seconds.
    assert int(kept.stat().st_mtime) == int((upper / "disk.img").stat().st_mtime)
    assert _room(kept) < 1 << 20
    archive = tmp_path / "a" / "b" / f"{at}.tar"
    await lab.engine.vps.export_snapshot(spec.task_id, at, archive)
    assert archive.stat().st_size > size
    assert _room(archive) < archive.stat().st_size - size + (8 << 20)
    await lab.engine.remove(spec.task_id, 1)
    again = lab.vps(spec.task_id, attempt=2)
    await begin(lab, again)
    assert await lab.run(again, "sh", "-c", "head -c 6 /disk.img") == (0, "begin\n")
    await lab.engine.remove(spec.task_id, 2)
    await lab.engine.vps.delete_snapshot(spec.task_id, at)
    await lab.engine.vps.import_snapshot(spec.task_id, at, archive)
    assert [one.at for one in await lab.engine.vps.list_snapshots(spec.task_id)] == [at]
    image = await lab.api.json("GET", f"images/{name}/json")
    taken_in = Path(image["GraphDriver"]["Data"]["UpperDir"]) / "disk.img"
    assert taken_in.stat().st_size == size
    assert _room(taken_in) < 1 << 20
    await lab.engine.vps.delete_snapshot(spec.task_id, at)


async def test_sparse_files_stay_sparse_in_a_snapshot_of_one_layer(
    lab: DockerLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_layer, "MOST_LAYERS", 1)
    spec = lab.vps()
    await begin(lab, spec)
    script = "echo begin > /disk.img && dd if=/dev/null of=/disk.img bs=1M seek=32"
    assert (await lab.run(spec, "sh", "-c", script))[0] == 0
    at = await snapshot(lab, spec)
    image = await lab.api.json("GET", f"images/kohakuriver-snapshot/vps-{spec.task_id}:{at}/json")
    driver = image["GraphDriver"]["Data"]
    layers = [Path(folder) for folder in (driver["UpperDir"], *driver.get("LowerDir", "").split(":"))]
    (kept,) = [layer / "disk.img" for layer in layers if (layer / "disk.img").exists()]
    assert (kept.stat().st_size, kept.read_bytes()[:6]) == (32 << 20, b"begin\n")
    assert _room(kept) < 1 << 20
    await lab.engine.remove(spec.task_id, 1)
    await lab.engine.vps.delete_snapshot(spec.task_id, at)
