"""Making a container by an engine that goes on although nobody waits: nothing is left or in the way."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import Conflict, NotFound, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.contract.spec import ContainerBody, ImageChoice, UserIds, WorkloadSpec
from kohakuriver.runner.engines.docker.workloads import create as workload_create
from kohakuriver.runner.engines.docker.workloads.containers import Inspected
from kohakuriver.runner.engines.docker.workloads.create import create_anew

SPEC = WorkloadSpec(
    task_id=TaskId(5),
    attempt=2,
    argv=("true",),
    env=(),
    cores=0,
    memory_bytes=0,
    binding=None,
    gpus=(),
    working_dir="/",
    user=UserIds(0, 0),
    mounts=(),
    stdout_path=Path("/o"),
    stderr_path=Path("/e"),
    body=ContainerBody(ImageChoice(environment="e")),
)
LEFT = Inspected("old", 1, WorkloadState.CREATED, 0, False, None, None, "", None, False, "true", "/", 0)


class SlowEngine(DockerApi):
    """Makes a container only when told to, whether its client still waits or not."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.made: list[str] = []
        self.failure: Exception | None = None

    async def json(self, method: str, path: str, **options: Any) -> Any:
        self.asked.set()
        await self.may_go_on.wait()
        if self.failure is not None:
            raise self.failure
        self.made.append(options["params"]["name"])
        return {"Id": "c1"}


async def cancelled_while_it_makes(engine: SlowEngine) -> "asyncio.Task[str]":
    call = asyncio.create_task(engine.create_container("n", {}))
    await engine.asked.wait()
    call.cancel()
    await asyncio.sleep(0)
    return call


def test_a_caller_that_is_cancelled_leaves_when_the_engine_has_answered() -> None:
    async def story() -> None:
        engine = SlowEngine()
        call = await cancelled_while_it_makes(engine)
        done, _ = await asyncio.wait([call], timeout=0.05)
        assert not done, "it left while the engine was still making the container"
        engine.may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert engine.made == ["n"]

    asyncio.run(story())


def test_a_refusal_that_comes_after_the_cancellation_is_not_raised_instead_of_it() -> None:
    async def story() -> None:
        engine = SlowEngine()
        engine.failure = Unavailable("gone")
        call = await cancelled_while_it_makes(engine)
        engine.may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(story())


def test_an_engine_that_hangs_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kohakuriver.dockerapi.client.ANSWER_SECONDS", 0.01)

    async def story() -> None:
        call = await cancelled_while_it_makes(SlowEngine())
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(call, 5)

    asyncio.run(story())


class Workloads:
    """Refuses to create while `found` has an entry: what is under the name then, None for nothing yet."""

    def __init__(self, *found: Inspected | None) -> None:
        self.found = list(found)
        self.removed: list[str] = []

    async def create(self, _task_id: TaskId, _body: object) -> str:
        if self.found:
            raise Conflict("the name is taken")
        return "new"

    async def inspect(self, _name: str) -> Inspected:
        if self.found[0] is None:
            self.found.pop(0)
            raise NotFound("no such container")
        return self.found[0]

    async def remove(self, container_id: str) -> None:
        self.found.pop(0)
        self.removed.append(container_id)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_create, "PAUSE_SECONDS", 0.001)


def create(workloads: Workloads) -> str:
    return asyncio.run(create_anew(cast(Any, workloads), SPEC, {}))


def test_what_the_engine_still_makes_is_waited_for_and_removed() -> None:
    workloads = Workloads(None, None, LEFT)
    assert create(workloads) == "new"
    assert workloads.removed == ["old"]


def test_a_name_that_is_taken_by_nothing_for_too_long_is_a_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_create, "MAKING_SECONDS", 0.01)
    with pytest.raises(Conflict):
        create(Workloads(*[None] * 10_000))


@pytest.mark.parametrize("other", [replace(LEFT, state=WorkloadState.RUNNING), replace(LEFT, attempt=3)])
def test_what_runs_or_is_newer_stays(other: Inspected) -> None:
    workloads = Workloads(other)
    with pytest.raises(Conflict):
        create(workloads)
    assert workloads.removed == []
