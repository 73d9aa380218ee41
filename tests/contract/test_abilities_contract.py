"""What an engine lacks is refused with its sentence, and keeps nobody from the rest of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kohakuriver.files.requests import StatFile
from kohakuriver.models.errors import SwitchedOff
from kohakuriver.runner.engines.contract.abilities import EngineAbility
from kohakuriver.runner.engines.contract.processes import ExecRequest
from kohakuriver.runner.engines.contract.vps import KeptSnapshots
from kohakuriver.runner.engines.docker.docker_engine import DockerEngine
from kohakuriver.runner.engines.fake.fake_engine import NO_FILES
from support.engines.labs import FakeLab, fresh_task_id, ignore

pytestmark = pytest.mark.anyio
SENTENCE = "this engine was made without it"
TASK = fresh_task_id()


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


def _calls(lab: FakeLab) -> dict[EngineAbility, list[Callable[[], Awaitable[object]]]]:
    """Every call that needs an ability."""
    engine, path, request = lab.engine, lab.folder / "file", ExecRequest(("true",))
    kept = KeptSnapshots(3)
    vps = lab.vps()
    assert vps.session is not None
    setup = vps.session
    return {
        EngineAbility.PAUSE: [lambda: engine.pause(TASK, 1), lambda: engine.resume(TASK, 1)],
        EngineAbility.INPUTS: [
            lambda: engine.inputs.open(TASK, 1),
            lambda: engine.create(replace(lab.spec("cat"), stdin=b""), ignore),
            lambda: engine.create(replace(lab.spec("cat"), stdin_streams=True), ignore),
        ],
        EngineAbility.PROCESSES: [
            lambda: engine.processes.open(TASK, request),
            lambda: engine.processes.launch(TASK, request),
            lambda: engine.processes.signal(TASK, "USR1"),
        ],
        EngineAbility.FILES: [
            lambda: engine.files.perform(TASK, StatFile("/")),
            lambda: anext(engine.files.watch(TASK, [b"/"])),
            lambda: anext(engine.files.read_archive(TASK, "/")),
            lambda: engine.files.write_archive(TASK, "/", _nothing()),
        ],
        EngineAbility.PORTS: [lambda: engine.ports.dial(TASK, 22), lambda: engine.ports.open_tunnel(TASK)],
        EngineAbility.VPS: [
            lambda: engine.create(vps, ignore),
            lambda: engine.vps.set_up(TASK, 1, setup),
            lambda: engine.vps.start_again(TASK, 1),
            lambda: engine.vps.end_processes(TASK, 1, 0),
        ],
        EngineAbility.SNAPSHOTS: [
            lambda: engine.vps.take_snapshot(TASK, 1, "", kept),
            lambda: engine.vps.list_snapshots(TASK),
            lambda: engine.vps.kept_vps(),  # noqa: PLW0108 - naming it may refuse already
            lambda: engine.vps.delete_snapshot(TASK, 1),
            lambda: engine.vps.export_snapshot(TASK, 1, path),
            lambda: engine.vps.import_snapshot(TASK, 1, path),
        ],
    }


@pytest.mark.parametrize("ability", EngineAbility)
async def test_what_is_lacking_is_refused_with_its_sentence(tmp_path: Path, ability: EngineAbility) -> None:
    lab = FakeLab(tmp_path, {ability: SENTENCE})
    assert ability not in lab.engine.abilities
    for call in _calls(lab)[ability]:
        with pytest.raises(SwitchedOff, match=SENTENCE):
            await call()
    assert await lab.engine.list_workloads() == []


async def test_without_any_ability_tasks_run_and_end(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path, dict.fromkeys(EngineAbility, SENTENCE))
    spec = lab.spec("print", "said")
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    assert ((await lab.engine.wait(spec)).exit_code, spec.stdout_path.read_text()) == (0, "said")
    await lab.engine.remove(spec.task_id, 1)


async def test_vps_do_without_snapshots(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path, {EngineAbility.SNAPSHOTS: SENTENCE})
    spec = lab.vps()
    assert spec.session is not None
    await lab.engine.create(spec, ignore)
    await lab.engine.start(spec.task_id, 1)
    assert await lab.engine.vps.set_up(spec.task_id, 1, spec.session)
    waiting = asyncio.ensure_future(lab.engine.wait(spec))
    await lab.engine.stop(spec.task_id, 1, 1)
    await waiting
    await lab.engine.remove(spec.task_id, 1)


def test_docker_lacks_nothing_and_the_fake_says_that_it_has_no_files(tmp_path: Path) -> None:
    assert DockerEngine.abilities.lacking == {}
    assert FakeLab(tmp_path).engine.abilities.lacking == {EngineAbility.FILES: NO_FILES}
