"""Starting a container by an engine that was restarted: never twice, and not in vain."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from kohakuriver.models.errors import EngineFault
from kohakuriver.runner.engines.contract.faults import LostByEngine
from kohakuriver.runner.engines.docker.kernel.forgotten import Forgotten
from kohakuriver.runner.engines.docker.workloads import start as workload_start
from kohakuriver.runner.engines.docker.workloads.start import start_in_sandbox

FORGOTTEN = "task 468bd183ca27: already exists: unknown"
HALF_MADE = "failed to start shim: mkdir /run/containerd/moby/468bd183ca27: file exists: unknown"
SANDBOX_DOWN = "cannot join network of a non running container: 0ad0e6d46f1d"


class Engine:
    """Workloads and sandboxes in one: answers each start with the next of `answers`; None is a success."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.revived: list[object] = []

    async def start(self, container_id: str) -> None:
        if (answer := self.answers.pop(0)) is not None:
            raise EngineFault(answer)

    async def revive(self, sandbox: object) -> None:
        self.revived.append(sandbox)


def start(engine: Engine, sandbox: object = None, unanswered: Path | None = None) -> None:
    both = cast(Any, engine)
    asyncio.run(start_in_sandbox(both, both, "468bd183ca27", cast(Any, sandbox), unanswered=unanswered))


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> dict[str, Forgotten]:
    """What is found of containers, by id."""
    found: dict[str, Forgotten] = {}
    monkeypatch.setattr(workload_start, "end_forgotten", lambda container_id: found[container_id])
    monkeypatch.setattr(workload_start, "PAUSE_SECONDS", 0.001)
    return found


@pytest.mark.parametrize("refusal", [FORGOTTEN, HALF_MADE])
def test_a_command_that_had_not_begun_is_started_once_the_engine_sees_that(
    ended: dict[str, Forgotten], refusal: str
) -> None:
    ended["468bd183ca27"] = Forgotten.NOT_BEGUN
    engine = Engine(refusal, refusal, refusal, None)
    start(engine)
    assert engine.answers == []


def test_a_command_that_had_begun_is_not_started_again(ended: dict[str, Forgotten]) -> None:
    ended["468bd183ca27"] = Forgotten.BEGUN
    engine = Engine(FORGOTTEN, None)
    with pytest.raises(LostByEngine):
        start(engine)
    assert engine.answers == [None]


@pytest.mark.parametrize("found", [Forgotten.NOTHING, Forgotten.BEGUN])
def test_what_the_engine_had_opened_a_journal_for_may_have_run(
    ended: dict[str, Forgotten], tmp_path: Path, found: Forgotten
) -> None:
    ended["468bd183ca27"] = found
    journal = tmp_path / "container.log"
    journal.touch()
    engine = Engine(None)
    with pytest.raises(LostByEngine):
        start(engine, unanswered=journal)
    assert engine.answers == [None]


def test_what_still_waits_to_become_the_command_is_started(
    ended: dict[str, Forgotten], tmp_path: Path
) -> None:
    ended["468bd183ca27"] = Forgotten.NOT_BEGUN
    journal = tmp_path / "container.log"
    journal.touch()
    engine = Engine(FORGOTTEN, None)
    start(engine, unanswered=journal)
    assert engine.answers == []


def test_a_start_that_never_reached_the_engine_is_made_good(tmp_path: Path) -> None:
    engine = Engine(None)
    start(engine, unanswered=tmp_path / "container.log")
    assert engine.answers == []


def test_an_engine_that_never_sees_it_is_not_asked_for_ever(
    ended: dict[str, Forgotten], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended["468bd183ca27"] = Forgotten.NOTHING
    monkeypatch.setattr(workload_start, "FORGETTING_SECONDS", 0.01)
    with pytest.raises(LostByEngine):
        start(Engine(*[FORGOTTEN] * 10_000))


def test_a_sandbox_that_went_down_with_the_engine_is_started_first(ended: dict[str, Forgotten]) -> None:
    engine = Engine(SANDBOX_DOWN, None)
    start(engine, sandbox="its sandbox")
    assert (engine.revived, engine.answers) == (["its sandbox"], [])


def test_any_other_refusal_is_handed_on(ended: dict[str, Forgotten]) -> None:
    with pytest.raises(EngineFault, match="no such device"):
        start(Engine("no such device"))
