"""What a node removes of what ended work left on it, and what it never does."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec import structs

from kohakuriver.files.folders.old_files import old_files
from kohakuriver.host.retention import Retention
from kohakuriver.host.retention.nodes import NodeParts
from kohakuriver.models.enums import LeftoverKind, TaskState
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.vps import KeptSnapshots
from kohakuriver.runner.leftovers import LeftoverParts, LeftoverService
from kohakuriver.runner.local_temp import DATA, LOGS, WORKLOADS, data_folder
from kohakuriver.runner.vps_service import SNAPSHOT_FOLDER, VpsService, VpsServiceParts
from kohakuriver.wire.leftovers import NodeLeftovers, Removal, RemovalRequest, RemovedKind
from kohakuriver.wire.messages import decode, encode
from support.engines.labs import FakeLab, ignore
from unit.host.retention.test_retention import Place, place, task, vps

__all__ = ["place"]
S = TaskState
NOW = 2_000_000_000.0
DAY = 86_400
pytestmark = pytest.mark.anyio


@dataclass
class Node:
    """A node over a fake engine; `held` are tasks of which something is there still."""

    folder: Path
    lab: FakeLab
    held: set[int] = field(default_factory=set)
    oldest: float | None = None
    image_requests: list[RemovalRequest] = field(default_factory=list)

    def service(self) -> LeftoverService:
        vps = VpsService(
            VpsServiceParts(
                lambda _: self.lab.engine,
                lambda: [self.lab.engine],
                lambda _: None,
                lambda: self.held,
                3,
                lambda: self.folder,
                self.folder,
            )
        )
        return LeftoverService(
            LeftoverParts(
                vps,
                lambda: self.held,
                lambda: self.folder,
                self.folder,
                self._sweep_images,
                self._oldest,
                lambda: NOW,
            )
        )

    async def _sweep_images(self, request: RemovalRequest) -> tuple[int, int]:
        self.image_requests.append(request)
        return 2, 50

    async def _oldest(self) -> float | None:
        return self.oldest

    async def with_snapshot(self, *, exported: bool = False) -> TaskId:
        spec = self.lab.vps()
        await self.lab.engine.create(spec, ignore)
        await self.lab.engine.start(spec.task_id, spec.attempt)
        made = await self.lab.engine.vps.take_snapshot(spec.task_id, 1, "", KeptSnapshots(3))
        if exported:
            path = self.folder / SNAPSHOT_FOLDER / f"vps-{spec.task_id}" / f"{made.at}.tar"
            await self.lab.engine.vps.export_snapshot(spec.task_id, made.at, path)
        return spec.task_id

    async def snapshots(self, task_id: TaskId) -> int:
        return len(await self.lab.engine.vps.list_snapshots(task_id))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    data_folder(tmp_path).mkdir(parents=True)
    (tmp_path / LOGS).mkdir()
    return Node(tmp_path, FakeLab(tmp_path))


def counts(removal: Removal) -> dict[str, int]:
    return {found.kind: found.count for found in removal.removed}


async def test_a_node_tells_what_it_has_and_nothing_that_is_not_ours(node: Node) -> None:
    one, other = await node.with_snapshot(exported=True), await node.with_snapshot()
    for name in ("77", "notes", "vps-5"):
        (node.folder / LOGS / name).mkdir()
    for name in ("vps-x", "88"):
        (node.folder / SNAPSHOT_FOLDER / name).mkdir()
    told = await node.service().tell()
    assert {int(text) for text in told.sessions} == {one, other}
    assert str(one) in told.exported
    assert "77" in told.outputs
    assert "5" not in told.outputs
    assert decode(encode(told), NodeLeftovers) == told


async def test_what_the_host_names_goes_and_what_is_held_stays(node: Node) -> None:
    gone, held = await node.with_snapshot(exported=True), await node.with_snapshot()
    outputs = {number: node.folder / LOGS / str(number) for number in (77, 78)}
    for folder in outputs.values():
        folder.mkdir()
        (folder / "stdout.log").write_bytes(b"x" * 5000)
    node.held = {held, 78}
    request = RemovalRequest(sessions=[str(gone), str(held)], outputs=["77", "78"])
    looked = await node.service().remove(request)
    assert (counts(looked), looked.faults) == ({"snapshots": 2, "output": 1}, [])
    assert (await node.snapshots(gone), outputs[77].exists()) == (1, True)
    assert counts(await node.service().remove(structs.replace(request, dry_run=False))) == counts(looked)
    assert [await node.snapshots(one) for one in (gone, held)] == [0, 1]
    assert not (node.folder / SNAPSHOT_FOLDER / f"vps-{gone}").exists()
    assert [folder.exists() for folder in outputs.values()] == [False, True]


async def test_images_are_swept_where_a_time_is_set_and_nowhere_else(node: Node) -> None:
    request = RemovalRequest(False, images_days=20)
    assert counts(await node.service().remove(request)) == {"images": 2}
    await node.service().remove(RemovalRequest(False))
    assert node.image_requests == [request]


def aged(path: Path, days: float, read_days: float | None = None) -> Path:
    """A file that was written, and read, so many days before NOW, which is after it was really made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 5000)
    read = days if read_days is None else read_days
    os.utime(path, (NOW - read * DAY, NOW - days * DAY))
    return path


async def test_local_temp_loses_what_nobody_touched_since_before_the_oldest_workload(node: Node) -> None:
    data = data_folder(node.folder)
    old, read, written = aged(data / "a/old", 91), aged(data / "a/read", 91, 2), aged(data / "written", 2)
    request = RemovalRequest(False, local_temp_days=90)
    node.oldest = NOW - 92 * DAY
    assert counts(await node.service().remove(request))["local_temp"] == 0
    node.oldest = NOW - 1 * DAY
    assert counts(await node.service().remove(RemovalRequest(local_temp_days=90)))["local_temp"] == 1
    assert old.exists(), "a look removes nothing"
    removal = await node.service().remove(request)
    assert counts(removal)["local_temp"] == 1
    assert removal.removed[0].size_bytes >= 5000
    assert [path.exists() for path in (old, read, written)] == [False, True, True]
    assert await node.service().remove(RemovalRequest(False)) == Removal([], [])


async def test_links_and_depths_in_local_temp_lead_nowhere(node: Node) -> None:
    data = data_folder(node.folder)
    treasure = aged(node.folder / "treasure" / "kept", 500)
    (data / "link").symlink_to(treasure)
    (data / "links").symlink_to(treasure.parent)
    deep = data.joinpath(*["d"] * 70)
    aged(deep / "old", 500)
    removal = await node.service().remove(RemovalRequest(False, local_temp_days=90))
    assert treasure.exists()
    assert (deep / "old").exists()
    assert "1 folders or files" in removal.faults[0]


def test_an_old_folder_goes_once_it_is_empty_and_a_file_that_was_renamed_lately_stays(tmp_path: Path) -> None:
    old = aged(tmp_path / "data/file", 500)
    os.utime(old, (1, 1))
    (tmp_path / "data/empty").mkdir()
    changed = old.stat().st_ctime
    assert old_files(tmp_path, ("data",), changed - 1000, removes=True).count == 0
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["empty", "file"]
    assert old_files(tmp_path, ("data",), changed + 1000, removes=True).count == 1
    assert list((tmp_path / "data").iterdir()) == []


async def test_a_file_system_that_notes_no_reading_is_left_alone(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = aged(data_folder(node.folder) / "kept", 500)
    monkeypatch.setattr("kohakuriver.runner.leftovers.reading_is_noted", lambda _: False)
    removal = await node.service().remove(RemovalRequest(False, local_temp_days=1))
    assert "noatime" in removal.faults[0]
    assert kept.exists()
    assert data_folder(node.folder).parts[-2:] == (WORKLOADS, DATA)


# The host's side


@dataclass
class Nodes:
    """Nodes as the host asks them."""

    told: dict[str, NodeLeftovers | Unavailable]
    removal: Removal = field(default_factory=Removal)
    requests: list[tuple[str, RemovalRequest]] = field(default_factory=list)

    async def call(
        self, node: str, method: str, target: str, body: bytes = b"", seconds: float = 60.0
    ) -> bytes:
        if (method, target) == ("GET", "/api/leftovers"):
            told = self.told[node]
            if isinstance(told, Unavailable):
                raise told
            return encode(told)
        assert (method, target) == ("POST", "/api/leftovers/remove")
        self.requests.append((node, decode(body, RemovalRequest)))
        return encode(self.removal)

    async def needed(self) -> list[str]:
        return ["ubuntu:24.04", "base"]

    async def environments(self) -> list[str] | None:
        return ["base"]

    def over(self, place: Place) -> Retention:
        parts = NodeParts(lambda: sorted(self.told), self.call, self.needed, self.environments)
        return place.retention(nodes=parts, snapshots=30, images=20, local_temp=40)


async def test_only_what_the_store_knows_to_have_ended_for_good_goes_from_nodes(place: Place) -> None:
    killed, fresh = vps(31, S.KILLED), vps(29, S.KILLED)
    stopped, failed = vps(800, S.STOPPED), vps(801, S.FAILED)
    old, young = task(101), task(60)
    await place.put(killed, fresh, stopped, failed, old, young, task(1))
    ids: list[int | str] = [str(one.id) for one in (killed, fresh, stopped, failed, old, young)]
    unknown = "5"
    told = NodeLeftovers(sessions=[*ids[:4], unknown], exported=ids[:1], outputs=[*ids[4:], unknown])
    nodes = Nodes({"n1": told, "n2": NodeLeftovers(exported=ids[:1]), "n3": Unavailable("n3 is unreachable")})
    nodes.removal = Removal([RemovedKind("snapshots", 3, 900)], ["the engine is ill"])
    report = await nodes.over(place).sweep()
    assert [node for node, _ in nodes.requests] == ["n1", "n2"]
    first, second = (request for _, request in nodes.requests)
    assert (first.sessions, first.outputs) == ([ids[0]], [ids[4]])
    assert second.sessions == [], "shared storage is the first one's to clear"
    assert (first.dry_run, first.images_days, first.local_temp_days) == (False, 20, 40)
    assert (first.needed_images, first.environments) == (["base", "ubuntu:24.04"], ["base"])
    assert ("n3", "n3 is unreachable") in report.faults
    assert ("n1", "the engine is ill") in report.faults
    (item,) = [i for i in report.items if (i.kind, i.place) == (LeftoverKind.SNAPSHOTS, "n1")]
    assert (item.count, item.size_bytes, item.kept_days) == (3, 900, 30)
    await nodes.over(place).look()
    assert nodes.requests[-1][1].dry_run
