"""The engine goes away, comes back, hangs and dies under running work; each test has a daemon of its own."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from kohakuriver.models.errors import Unavailable
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.runner.engines.contract.engine import ExitResult
from kohakuriver.runner.engines.contract.faults import LostByEngine
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.docker import watch as engine_watch
from kohakuriver.runner.engines.docker.kernel.forgotten import end_forgotten
from support.engines.labs import DockerLab, docker_lab, ignore, until
from support.engines.private_docker import DockerDaemon, own_daemon

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(240)]

T = TypeVar("T")
LINES = 300
HEARD = 10
COUNT = (
    f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo $i; echo e$i >&2; sleep 0.02; "
    f"[ $i -ne {HEARD} ] || until [ -e /gone/yes ]; do sleep 0.02; done; done"
)
"""Counts on both streams; after the first lines it waits until the engine is gone.

An engine that ends can lose the piece that it had read and not written down (note 0007), so it has none then.
"""


@asynccontextmanager
async def lab_on(daemon: DockerDaemon, folder: Path) -> AsyncIterator[DockerLab]:
    async with docker_lab(folder / "lab", pool_size=1, url=daemon.url) as lab:
        yield lab


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerDaemon]:
    with own_daemon(tmp_path_factory.mktemp("living"), "--live-restore") as daemon:
        yield daemon


@pytest.fixture
async def lab(
    living: DockerDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DockerLab]:
    monkeypatch.setattr(engine_watch, "INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr(engine_watch, "PATIENCE_SECONDS", 1.0)
    async with lab_on(living, tmp_path) as there:
        yield there


async def begin(lab: DockerLab, script: str, *mounts: Mount) -> WorkloadSpec:
    spec = lab.spec("/bin/sh", "-c", script)
    spec = replace(spec, mounts=(*spec.mounts, *mounts))
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    return spec


async def until_fault(lab: DockerLab, words: str) -> None:
    async def said() -> bool:
        return any(words in fault for fault in lab.engine.faults())

    await until(said)


async def until_well(lab: DockerLab) -> None:
    async def well() -> bool:
        return lab.engine.faults() == []

    await until(well, 60)


async def until_output(spec: WorkloadSpec) -> None:
    async def printed() -> bool:
        return spec.stdout_path.exists() and spec.stdout_path.stat().st_size > 0

    await until(printed)


async def until_heard(spec: WorkloadSpec) -> None:
    """Wait until nothing of what the counter says before it waits is on its way."""

    async def written() -> bool:
        return all(path.read_bytes().count(b"\n") >= HEARD for path in (spec.stdout_path, spec.stderr_path))

    await until_output(spec)
    await until(written)


async def in_thread(work: Callable[..., T], *arguments: object) -> T:
    return await asyncio.to_thread(work, *arguments)


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGKILL])
async def test_with_live_restore_work_goes_on_through_a_restart_of_the_engine(
    lab: DockerLab, living: DockerDaemon, tmp_path: Path, with_signal: signal.Signals
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    spec = await begin(lab, f"{COUNT}; exit 3", Mount(str(gone), "/gone"))
    waiting = asyncio.ensure_future(lab.engine.wait(spec))
    await until_heard(spec)
    await in_thread(living.end, with_signal)
    (gone / "yes").touch()
    await until_fault(lab, "does not answer")
    living.start()
    await in_thread(living.await_answer)
    result = await waiting
    assert (result.exit_code, result.lost_to_system) == (3, False)
    assert spec.stdout_path.read_text() == "".join(f"{i}\n" for i in range(1, LINES + 1))
    assert spec.stderr_path.read_text() == "".join(f"e{i}\n" for i in range(1, LINES + 1))
    await lab.engine.remove(spec.task_id, 1)
    await until_well(lab)


async def test_a_command_that_ran_and_ended_before_the_engine_noted_its_start_is_not_run_again(
    lab: DockerLab, living: DockerDaemon, tmp_path: Path
) -> None:
    """What such an engine remembers is put in place: its note of the container as it was before the start."""
    runs = tmp_path / "runs"
    runs.mkdir(mode=0o777)
    spec = lab.spec("/bin/sh", "-c", "echo once >> /runs/all")
    spec = replace(spec, mounts=(*spec.mounts, Mount(str(runs), "/runs")))
    await lab.engine.create(spec, ignore)
    found = await lab.engine.workloads.find(spec.task_id)
    note = lab.engine.data_root / "containers" / found.id / "config.v2.json"
    before = note.read_bytes()
    await lab.engine.start(spec.task_id, 1)
    await lab.engine.workloads.wait_until_stopped(found.id)
    await in_thread(living.end, signal.SIGKILL)
    note.write_bytes(before)
    living.start()
    await in_thread(living.await_answer)
    with pytest.raises(LostByEngine, match="restarted while it started"):
        await lab.engine.start(spec.task_id, 1)
    assert (runs / "all").read_text() == "once\n"
    await lab.engine.remove(spec.task_id, 1)
    await until_well(lab)


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGKILL])
async def test_output_of_work_that_ends_while_the_engine_is_unreachable_is_kept(
    lab: DockerLab, living: DockerDaemon, tmp_path: Path, with_signal: signal.Signals
) -> None:
    result = await end_while_unreachable(lab, living, tmp_path, with_signal)
    if await in_thread(living.forgets_ends):
        assert result.lost_to_system
        assert "does not know how it ended" in (result.error or "")
    else:
        assert (result.exit_code, result.lost_to_system) == (3, False)
    await until_well(lab)


async def test_where_containerd_stays_the_status_is_known_as_well(tmp_path: Path) -> None:
    with own_daemon(tmp_path, "--live-restore", lasting_containerd=True) as daemon:
        async with lab_on(daemon, tmp_path) as lab:
            result = await end_while_unreachable(lab, daemon, tmp_path, signal.SIGTERM)
            assert (result.exit_code, result.lost_to_system, result.error) == (3, False, None)


async def end_while_unreachable(
    lab: DockerLab, daemon: DockerDaemon, folder: Path, with_signal: signal.Signals
) -> ExitResult:
    """The command writes on only once the engine is gone, and ends before it is back; no output is lost."""
    gone = folder / "gone"
    gone.mkdir(mode=0o777)
    script = "echo before; while [ ! -e /gone/yes ]; do sleep 0.02; done; echo after; echo eafter >&2; exit 3"
    spec = await begin(lab, script, Mount(str(gone), "/gone"))
    waiting = asyncio.ensure_future(lab.engine.wait(spec))
    await until_output(spec)
    pid = int(
        await in_thread(daemon.run, "inspect", "-f", "{{.State.Pid}}", f"kohakuriver-task-{spec.task_id}")
    )
    await in_thread(daemon.end, with_signal)
    (gone / "yes").touch()

    async def ended() -> bool:
        return not Path(f"/proc/{pid}").exists()

    await until(ended)
    daemon.start()
    await in_thread(daemon.await_answer)
    result = await waiting
    assert (result.stdout_bytes, result.stderr_bytes) == (13, 7)
    assert spec.stdout_path.read_text() == "before\nafter\n"
    assert spec.stderr_path.read_text() == "eafter\n"
    await lab.engine.remove(spec.task_id, 1)
    return result


async def test_an_end_that_nobody_saw_is_the_systems_and_not_the_commands(
    lab: DockerLab, living: DockerDaemon
) -> None:
    """Also for a runner that was not there when the engine went away."""
    unseen = await begin(lab, "sleep 600")
    found = await lab.engine.workloads.find(unseen.task_id)
    await in_thread(living.end, signal.SIGKILL)
    await in_thread(end_forgotten, found.id)
    living.start()
    await in_thread(living.await_answer)
    await lab.restart()
    own = await begin(lab, "exit 255")
    result = await lab.engine.wait(unseen)
    assert (result.exit_code, result.lost_to_system) == (255, True)
    assert "does not know how it ended" in (result.error or "")
    result = await lab.engine.wait(own)
    assert (result.exit_code, result.lost_to_system, result.error) == (255, False, None)
    for spec in (unseen, own):
        await lab.engine.remove(spec.task_id, 1)
    await until_well(lab)


async def test_a_status_that_looks_unknown_is_the_commands_where_the_engine_saw_it(
    lab: DockerLab, living: DockerDaemon, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    go.mkdir(mode=0o777)
    script = "while [ ! -e /go/yes ]; do sleep 0.02; done; exit 255"
    spec = await begin(lab, script, Mount(str(go), "/go"))
    waiting = asyncio.ensure_future(lab.engine.wait(spec))
    await in_thread(living.end)
    await until_fault(lab, "does not answer")
    living.start()
    await in_thread(living.await_answer)
    (go / "yes").touch()
    result = await waiting
    assert (result.exit_code, result.lost_to_system, result.error) == (255, False, None)
    await lab.engine.remove(spec.task_id, 1)
    await until_well(lab)


async def test_a_workload_can_be_made_once_the_engine_is_back(lab: DockerLab, living: DockerDaemon) -> None:
    spec = lab.spec("/bin/echo", "fine")
    await in_thread(living.end, signal.SIGKILL)
    with pytest.raises(Unavailable):
        await lab.engine.create(spec, ignore)
    living.start()
    await in_thread(living.await_answer)
    await until_well(lab)
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    await lab.engine.wait(spec)
    assert spec.stdout_path.read_text() == "fine\n"
    await lab.engine.remove(spec.task_id, 1)


async def test_an_engine_that_hangs_is_said_to_and_work_goes_on_once_it_answers(
    lab: DockerLab, living: DockerDaemon
) -> None:
    spec = await begin(lab, "echo first; sleep 1; echo last")
    waiting = asyncio.ensure_future(lab.engine.wait(spec))
    os.kill(living.pid, signal.SIGSTOP)
    try:
        await until_fault(lab, "it hangs")
        assert not waiting.done()
    finally:
        os.kill(living.pid, signal.SIGCONT)
    assert (await waiting).exit_code == 0
    assert spec.stdout_path.read_text() == "first\nlast\n"
    await lab.engine.remove(spec.task_id, 1)
    await until_well(lab)


async def test_a_container_whose_making_was_not_heard_of_is_no_obstacle(
    lab: DockerLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = lab.spec("/bin/echo", "fine")
    real = lab.engine.workloads.create

    async def unheard(*arguments: object) -> str:
        await real(*arguments)  # type: ignore[arg-type]
        raise Unavailable("the connection broke before the answer")

    async def unreachable(*_: object) -> None:
        raise Unavailable("the engine is still away")

    with monkeypatch.context() as broken:
        broken.setattr(lab.engine.workloads, "create", unheard)
        broken.setattr(lab.engine.workloads, "inspect", unreachable)
        with pytest.raises(Unavailable):
            await lab.engine.create(spec, ignore)
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    await lab.engine.wait(spec)
    assert spec.stdout_path.read_text() == "fine\n"
    await lab.engine.remove(spec.task_id, 1)


async def test_without_live_restore_work_ends_with_the_reason_and_new_work_runs(
    tmp_path: Path,
) -> None:
    with own_daemon(tmp_path) as daemon:
        async with lab_on(daemon, tmp_path) as lab:
            running = await begin(lab, "echo x; sleep 600")
            other = await begin(lab, "trap 'exit 7' TERM; echo x; while :; do sleep 0.1; done")
            waits = [asyncio.ensure_future(lab.engine.wait(spec)) for spec in (running, other)]
            await until_output(running)
            await until_output(other)
            await in_thread(daemon.end)
            daemon.start()
            await in_thread(daemon.await_answer)
            ended, answered = await asyncio.gather(*waits)
            assert ended.lost_to_system
            assert "was restarted" in (ended.error or "")
            assert (answered.exit_code, answered.lost_to_system) == (7, False), (
                "its own end, so its own status"
            )
            for spec in (running, other):
                await lab.engine.remove(spec.task_id, 1)
            await until_well(lab)
            fresh = await begin(lab, "echo fine")
            assert (await lab.engine.wait(fresh)).exit_code == 0
            await lab.engine.remove(fresh.task_id, 1)


async def test_a_crash_of_engine_and_runner_without_live_restore_is_told_from_an_end(tmp_path: Path) -> None:
    """As after a reboot: nothing is left running, and a new runner meets what the engine remembers."""
    with own_daemon(tmp_path) as daemon:
        async with lab_on(daemon, tmp_path) as lab:
            spec = await begin(lab, "echo begun; sleep 600")
            own = await begin(lab, "exit 143")
            await lab.engine.wait(own)
            await until_output_copied(lab, spec)
            await in_thread(daemon.end)
            daemon.start()
            await in_thread(daemon.await_answer)
            await lab.restart()
            result = await lab.engine.wait(spec)
            assert result.lost_to_system
            assert spec.stdout_path.read_text() == "begun\n"
            for each in (spec, own):
                await lab.engine.remove(each.task_id, 1)


async def until_output_copied(lab: DockerLab, spec: WorkloadSpec) -> None:
    """Let the command print, with nobody left who waits for its end."""
    waiting = asyncio.ensure_future(lab.engine.wait(spec))
    await until_output(spec)
    waiting.cancel()
    await asyncio.wait([waiting])
