"""`vps delete`: what is left of a VPS that was deleted is nothing, and nothing that lives is deleted."""

import sqlite3
from pathlib import Path

import pytest

from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import Conflict, EngineFault
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.vps import KeptSnapshots
from kohakuriver.runner.local_temp import LOGS
from kohakuriver.runner.vps_service import SNAPSHOT_FOLDER, VpsService, VpsServiceParts
from support.engines.labs import FakeLab, ignore
from support.host.api import ApiHarness, play

S = TaskState
TABLES = ("tasks", "task_events", "task_specs", "orders", "vps_assignments")


async def stopped(harness: ApiHarness, *, ends: TaskState = S.STOPPED) -> str:
    """A VPS of otto's that ran on n1 and has ended; its spec is large enough to be kept apart."""
    await harness.room.join("n1")
    body = {"name": "lab", "env_vars": {"A": "x" * 4000}}
    answer = await harness.call("otto", "POST", "/api/vps/create", json=body)
    task = str(answer.json()["task_id"])
    await harness.room.accept_orders()
    await harness.room.report(int(task), S.RUNNING, 1, address="172.30.0.9")
    await harness.room.report(int(task), ends, 2)
    return task


def rows(folder: Path, task: str) -> dict[str, int]:
    """How many rows of each table are about the task."""
    found = {}
    with sqlite3.connect(folder / "host.db") as connection:
        for table in TABLES:
            column = "id" if table in ("tasks", "task_specs") else "task_id"
            query = f"SELECT COUNT(*) FROM {table} WHERE {column} = ?"
            found[table] = connection.execute(query, (int(task),)).fetchone()[0]
    return found


def put_output(folder: Path, task: str) -> Path:
    output = folder / "logs" / task / "attempt-2"
    output.mkdir(parents=True)
    (output / "stdout.log").write_text("what it wrote")
    return output.parent


@pytest.mark.parametrize("ends", [S.STOPPED, S.FAILED, S.KILLED])
def test_a_deleted_vps_leaves_nothing_behind(tmp_path: Path, ends: TaskState) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await stopped(harness, ends=ends)
        output = put_output(harness.shared, task)
        other = put_output(harness.shared, "12345")
        assigned = {"username": "ulf"}
        assert (await harness.call("otto", "POST", f"/api/vps/{task}/assignments", json=assigned)).is_success
        assert all(rows(tmp_path, task)[name] for name in TABLES if name != "orders")
        harness.runners.answers = {("DELETE", f"/api/vps/{task}"): b'{"deleted":1}'}
        answer = await harness.call("otto", "DELETE", f"/api/vps/{task}")
        assert answer.status_code == 200, answer.text
        assert harness.runners.calls == [("n1", "DELETE", f"/api/vps/{task}", b"")]
        assert rows(tmp_path, task) == dict.fromkeys(TABLES, 0)
        assert not output.exists()
        assert other.exists()
        assert (await harness.call("otto", "GET", f"/api/status/{task}")).status_code == 404
        assert (await harness.call("otto", "DELETE", f"/api/vps/{task}")).status_code == 404
        made = await harness.call("otto", "POST", "/api/vps/create", json={"name": "lab"})
        assert made.status_code == 200, "its name is free again"

    play(tmp_path, scenario)


def test_other_nodes_delete_what_they_have_of_it_as_well(tmp_path: Path) -> None:
    """It may have been there before it was moved."""

    async def scenario(harness: ApiHarness) -> None:
        task = await stopped(harness)
        await harness.room.join("n2")
        harness.runners.answers = {("DELETE", f"/api/vps/{task}"): b'{"deleted":1}'}
        assert (await harness.call("otto", "DELETE", f"/api/vps/{task}")).status_code == 200
        asked = [(node, method, target) for node, method, target, _ in harness.runners.calls]
        assert asked == [(node, "DELETE", f"/api/vps/{task}") for node in ("n1", "n2")]

    play(tmp_path, scenario)


def test_what_runs_is_not_deleted_and_strangers_delete_nothing(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await stopped(harness)
        assert (await harness.call("ursula", "DELETE", f"/api/vps/{task}")).status_code == 403
        assert (await harness.call("otto", "POST", f"/api/vps/restart/{task}")).status_code == 202
        answer = await harness.call("otto", "DELETE", f"/api/vps/{task}")
        assert (answer.status_code, "vps stop" in answer.json()["detail"]) == (409, True)
        command = await harness.submit()
        assert (await harness.call("otto", "DELETE", f"/api/vps/{command}")).status_code == 404
        assert harness.runners.calls == []
        assert rows(tmp_path, task)["tasks"] == 1

    play(tmp_path, scenario)


def test_one_whose_node_fails_stays_down_until_it_is_deleted_after_all(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await stopped(harness)
        path = f"/api/vps/{task}"
        harness.runners.answers = {("DELETE", path): EngineFault("the engine is ill")}
        assert (await harness.call("otto", "DELETE", path)).status_code == 502
        refused = await harness.call("otto", "POST", f"/api/vps/restart/{task}")
        assert (refused.status_code, "is being deleted" in refused.json()["detail"]) == (409, True)
        shown = (await harness.call("otto", "GET", f"/api/status/{task}")).json()
        assert "vps delete" in shown["notice"]
        harness.runners.answers = {("DELETE", path): b"{}"}
        assert (await harness.call("otto", "DELETE", path)).status_code == 200

    play(tmp_path, scenario)


def test_the_deletion_waits_for_a_node_that_is_unreachable_and_not_for_one_that_was_removed(
    tmp_path: Path,
) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await stopped(harness)
        harness.room.control.loop.state.nodes["n1"].online = False
        answer = await harness.call("otto", "DELETE", f"/api/vps/{task}")
        assert (answer.status_code, "is unreachable" in answer.json()["detail"]) == (503, True)
        harness.runners.answers = {}
        assert (await harness.call("ada", "DELETE", "/api/nodes/n1?force=true")).is_success
        assert (await harness.call("otto", "DELETE", f"/api/vps/{task}")).status_code == 200
        assert harness.runners.calls == []

    play(tmp_path, scenario)


def service(lab: FakeLab, folder: Path, held: set[int]) -> VpsService:
    return VpsService(
        VpsServiceParts(
            lambda _: lab.engine,
            lambda: [lab.engine],
            lambda _: None,
            lambda: held,
            3,
            lambda: folder,
            folder,
        )
    )


@pytest.mark.anyio
async def test_a_node_deletes_all_that_it_and_shared_storage_have_of_the_vps(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    spec, others = lab.vps(), lab.vps()
    exported = {}
    for one in (spec, others):
        await lab.engine.create(one, ignore)
        await lab.engine.start(one.task_id, one.attempt)
        vps = service(lab, tmp_path, set())
        made = await lab.engine.vps.take_snapshot(one.task_id, one.attempt, "", KeptSnapshots(3))
        await vps.export(one.task_id, made.at)
        exported[one.task_id] = tmp_path / SNAPSHOT_FOLDER / f"vps-{one.task_id}"
        assert (tmp_path / LOGS / str(one.task_id)).is_dir()
    assert await service(lab, tmp_path, set()).delete_vps(spec.task_id) == 1
    assert await lab.engine.vps.list_snapshots(spec.task_id) == []
    assert not exported[spec.task_id].exists()
    assert not (tmp_path / LOGS / str(spec.task_id)).exists()
    assert len(await lab.engine.vps.list_snapshots(others.task_id)) == 1
    assert exported[others.task_id].exists()
    assert (tmp_path / LOGS / str(others.task_id)).exists()
    assert await service(lab, tmp_path, set()).delete_vps(spec.task_id) == 0


@pytest.mark.anyio
async def test_a_node_deletes_nothing_of_a_vps_that_it_still_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kohakuriver.runner.vps_service.REMOVAL_LOOKS", 2)
    lab = FakeLab(tmp_path)
    spec = lab.vps()
    (tmp_path / LOGS / str(spec.task_id)).mkdir(parents=True)
    with pytest.raises(Conflict):
        await service(lab, tmp_path, {spec.task_id}).delete_vps(spec.task_id)
    assert (tmp_path / LOGS / str(spec.task_id)).exists()


@pytest.mark.anyio
async def test_a_link_where_something_of_the_vps_was_is_not_followed(tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "kept").write_text("mine")
    for task, place in ((TaskId(5), LOGS), (TaskId(6), SNAPSHOT_FOLDER)):
        (tmp_path / place).mkdir()
        name = str(task) if place == LOGS else f"vps-{task}"
        (tmp_path / place / name).symlink_to(treasure)
        with pytest.raises((EngineFault, Conflict)):
            await service(FakeLab(tmp_path), tmp_path, set()).delete_vps(task)
    assert (treasure / "kept").read_text() == "mine"
