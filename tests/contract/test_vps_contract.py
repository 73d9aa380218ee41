"""The rules of `engines.contract.vps`, over the fake and the real engine alike."""

import asyncio
from pathlib import Path

import pytest

from kohakuriver.models.enums import SshKeyMode
from kohakuriver.models.errors import Conflict, EngineFault, NotFound, Unavailable
from kohakuriver.models.vps import FROM_IMAGE
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.contract.vps import KeptSnapshots
from support.engines.labs import Lab, ignore, until

pytestmark = pytest.mark.anyio


async def forget(lab: Lab, spec: WorkloadSpec) -> None:
    """Leave nothing of the VPS."""
    await lab.engine.remove(spec.task_id, 0)
    for snapshot in await lab.engine.vps.list_snapshots(spec.task_id):
        await lab.engine.vps.delete_snapshot(spec.task_id, snapshot.at)


async def snapshot(lab: Lab, spec: WorkloadSpec, message: str = "", keep: int = 9) -> int:
    return (await lab.engine.vps.take_snapshot(spec.task_id, spec.attempt, message, KeptSnapshots(keep))).at


async def state_of(lab: Lab, spec: WorkloadSpec) -> WorkloadState | None:
    found = {workload.task_id: workload.state for workload in await lab.engine.list_workloads()}
    return found.get(spec.task_id)


async def test_a_vps_runs_until_it_is_stopped_and_is_listed_with_its_attempt(lab: Lab) -> None:
    spec = lab.vps(attempt=4)
    await lab.begin_vps(spec)
    await lab.restart()
    assert (spec.task_id, 4, WorkloadState.RUNNING) in [
        (found.task_id, found.attempt, found.state) for found in await lab.engine.list_workloads()
    ]
    waiting = asyncio.ensure_future(lab.engine.wait(spec))
    await lab.engine.stop(spec.task_id, 4, 20)
    assert (await waiting).lost_to_system is False
    await forget(lab, spec)
    assert await state_of(lab, spec) is None


async def test_programs_end_in_order_and_leave_the_vps_running(lab: Lab) -> None:
    spec = lab.vps()
    await lab.begin_vps(spec)
    await lab.begin_program(spec, "/last-words", "written at the end")
    await lab.engine.vps.end_processes(spec.task_id, 1, 20)
    assert await state_of(lab, spec) is WorkloadState.RUNNING
    assert await lab.got(spec, "/last-words") == "written at the end"
    await lab.engine.vps.end_processes(spec.task_id, 1, 20)  # nothing is left to end
    await forget(lab, spec)


async def test_its_files_and_address_outlive_a_stop_with_a_snapshot(lab: Lab) -> None:
    spec = lab.vps()
    address = await lab.begin_vps(spec)
    await lab.put(spec, "/var/mine/file", "mine")
    await snapshot(lab, spec)
    await lab.engine.stop(spec.task_id, 1, 5)
    await lab.engine.remove(spec.task_id, 1)
    again = lab.vps(spec.task_id, attempt=2, address=address)
    assert await lab.begin_vps(again) == address
    assert await lab.got(again, "/var/mine/file") == "mine"
    await forget(lab, again)


async def test_an_address_that_is_taken_is_not_waited_for(lab: Lab) -> None:
    first = lab.vps()
    address = await lab.begin_vps(first)
    second = lab.vps(address=address)
    assert await lab.begin_vps(second) not in (address, "")
    await forget(lab, first)
    await forget(lab, second)


async def test_a_start_begins_from_the_newest_the_chosen_or_the_image(lab: Lab) -> None:
    spec = lab.vps()
    await lab.begin_vps(spec)
    times = []
    for text in ("one", "two"):
        await lab.put(spec, "/file", text)
        times.append(await snapshot(lab, spec, text))
    seen = {}
    for attempt, restore in enumerate(("", str(times[0]), FROM_IMAGE), start=2):
        await lab.engine.remove(spec.task_id, 0)
        again = lab.vps(spec.task_id, attempt, restore=restore)
        await lab.begin_vps(again)
        seen[restore] = await lab.got(again, "/file")
    assert seen == {"": "two", str(times[0]): "one", FROM_IMAGE: None}
    await lab.engine.remove(spec.task_id, 0)
    with pytest.raises(EngineFault, match=r"snapshot 5 of VPS .* is not on this node"):
        await lab.engine.create(lab.vps(spec.task_id, 9, restore="5"), ignore)
    assert await state_of(lab, spec) is None
    await forget(lab, spec)


async def test_snapshots_are_listed_newest_first_and_the_oldest_beyond_the_limit_go(lab: Lab) -> None:
    spec = lab.vps()
    await lab.begin_vps(spec)
    made = [await snapshot(lab, spec, f"message {number} ü", keep=2) for number in range(4)]
    assert len(set(made)) == 4, "two in one second have different times"
    listed = await lab.engine.vps.list_snapshots(spec.task_id)
    assert [(one.at, one.message) for one in listed] == [
        (made[3], "message 3 ü"),
        (made[2], "message 2 ü"),
    ]
    last = await snapshot(lab, spec, keep=1)
    assert [one.at for one in await lab.engine.vps.list_snapshots(spec.task_id)] == [last]
    await lab.engine.remove(spec.task_id, 1)
    assert len(await lab.engine.vps.list_snapshots(spec.task_id)) == 1, "they outlive the VPS"
    with pytest.raises(NotFound):
        await lab.engine.vps.delete_snapshot(spec.task_id, made[0])
    await forget(lab, spec)
    assert await lab.engine.vps.list_snapshots(spec.task_id) == []


async def test_a_snapshot_tells_how_much_it_adds(lab: Lab) -> None:
    spec = lab.vps()
    await lab.begin_vps(spec)
    await lab.put(spec, "/file", "x" * 100_000)
    made = await lab.engine.vps.take_snapshot(spec.task_id, 1, "", KeptSnapshots(3))
    assert 100_000 <= made.size_bytes < 200_000
    await forget(lab, spec)


async def test_a_snapshot_leaves_a_running_vps_running_and_a_paused_one_paused(lab: Lab) -> None:
    spec = lab.vps()
    await lab.begin_vps(spec)
    await snapshot(lab, spec)
    assert await state_of(lab, spec) is WorkloadState.RUNNING
    await lab.engine.pause(spec.task_id, 1)
    await snapshot(lab, spec)
    assert await state_of(lab, spec) is WorkloadState.PAUSED
    await lab.engine.resume(spec.task_id, 1)
    assert await state_of(lab, spec) is WorkloadState.RUNNING
    await forget(lab, spec)


async def test_what_has_ended_can_be_kept_and_started_again_with_its_files(lab: Lab) -> None:
    spec = lab.vps()
    address = await lab.begin_vps(spec)
    await lab.put(spec, "/file", "here")
    await lab.engine.stop(spec.task_id, 1, 5)
    await lab.engine.wait(spec)
    assert spec.session is not None
    with pytest.raises(Conflict, match="does not run"):
        await lab.engine.vps.set_up(spec.task_id, 1, spec.session)
    await snapshot(lab, spec)
    await lab.engine.vps.start_again(spec.task_id, 1)
    await lab.engine.vps.start_again(spec.task_id, 1)
    assert await state_of(lab, spec) is WorkloadState.RUNNING
    assert await lab.engine.vps.set_up(spec.task_id, 1, spec.session) == address
    assert await lab.got(spec, "/file") == "here"
    waiting = asyncio.ensure_future(lab.engine.wait(spec))
    await lab.engine.stop(spec.task_id, 1, 5)
    await waiting
    await forget(lab, spec)


async def test_what_an_earlier_run_left_is_in_nobodys_way(lab: Lab) -> None:
    spec = lab.vps()
    await lab.begin_vps(spec)
    second = lab.vps(spec.task_id, attempt=2)
    with pytest.raises(EngineFault, match="attempt"):
        await lab.engine.create(second, ignore)
    await lab.engine.stop(spec.task_id, 1, 5)

    async def ended() -> bool:
        return await state_of(lab, spec) is WorkloadState.EXITED

    await until(ended)
    await lab.begin_vps(second)
    assert [
        found.attempt for found in await lab.engine.list_workloads() if found.task_id == spec.task_id
    ] == [2]
    await forget(lab, second)


async def test_a_snapshot_travels_in_a_file_and_only_to_where_it_belongs(lab: Lab, tmp_path: Path) -> None:
    spec, other = lab.vps(), lab.vps()
    await lab.begin_vps(spec)
    await lab.put(spec, "/file", "travelled")
    at = await snapshot(lab, spec, "to go")
    path = tmp_path / "made" / "snapshot.tar"
    await lab.engine.vps.export_snapshot(spec.task_id, at, path)
    await lab.engine.vps.export_snapshot(spec.task_id, at, path)
    assert [file.name for file in path.parent.iterdir()] == ["snapshot.tar"]
    await forget(lab, spec)
    for task_id, time in ((other.task_id, at), (spec.task_id, at + 1)):
        with pytest.raises(EngineFault, match="no snapshot of this VPS"):
            await lab.engine.vps.import_snapshot(task_id, time, path)
    for _ in range(2):
        await lab.engine.vps.import_snapshot(spec.task_id, at, path)
    assert [one.message for one in await lab.engine.vps.list_snapshots(spec.task_id)] == ["to go"]
    await lab.begin_vps(lab.vps(spec.task_id, attempt=2))
    assert await lab.got(spec, "/file") == "travelled"
    await forget(lab, spec)


async def test_a_file_that_is_no_snapshot_or_is_missing_is_refused(lab: Lab, tmp_path: Path) -> None:
    spec = lab.vps()
    (tmp_path / "junk").write_bytes(b"\x80junk")
    with pytest.raises(EngineFault, match="no snapshot of this VPS"):
        await lab.engine.vps.import_snapshot(spec.task_id, 5, tmp_path / "junk")
    with pytest.raises(NotFound):
        await lab.engine.vps.import_snapshot(spec.task_id, 5, tmp_path / "missing")
    with pytest.raises(NotFound):
        await lab.engine.vps.export_snapshot(spec.task_id, 5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


async def test_an_image_of_one_program_is_a_vps_without_ssh_and_says_why_not_with_it(lab: Lab) -> None:
    spec = lab.vps(image="bare")
    await lab.begin_vps(spec)
    await forget(lab, spec)
    spec = lab.vps(image="bare", ssh_key_mode=SshKeyMode.UPLOAD, authorized_keys=("ssh-ed25519 A",))
    with pytest.raises(EngineFault, match=r"neither sshd nor a package manager.*mode disabled"):
        await lab.begin_vps(spec)
    await forget(lab, spec)


async def test_a_connection_reaches_what_listens_in_a_vps(lab: Lab) -> None:
    spec = lab.vps()
    await lab.begin_vps(spec)
    said = [b""]

    async def answers() -> bool:
        try:
            reader, writer = await lab.engine.ports.dial(spec.task_id, 7777)
        except Unavailable:
            return False
        said[0] = await reader.read()
        writer.close()
        return True

    async with lab.greeting(spec, 7777, "hello"):
        await until(answers)
    assert said == [b"hello\n"]
    await forget(lab, spec)


async def test_a_port_where_nothing_listens_is_unavailable(lab: Lab) -> None:
    spec = lab.vps()
    await lab.begin_vps(spec)
    with pytest.raises(Unavailable, match="port 7"):
        await lab.engine.ports.dial(spec.task_id, 7)
    with pytest.raises(NotFound):
        await lab.engine.ports.dial(lab.vps().task_id, 7)
    await forget(lab, spec)
    with pytest.raises(NotFound):
        await lab.engine.vps.take_snapshot(spec.task_id, 1, "", KeptSnapshots(3))


async def test_the_vps_that_have_snapshots_are_known(lab: Lab) -> None:
    kept, bare = lab.vps(), lab.vps()
    for spec in (kept, bare):
        await lab.begin_vps(spec)
    for _ in range(2):
        await snapshot(lab, kept)
    found = await lab.engine.vps.kept_vps()
    assert (found.count(kept.task_id), bare.task_id in found) == (1, False)
    await forget(lab, kept)
    assert kept.task_id not in await lab.engine.vps.kept_vps()
    await forget(lab, bare)
