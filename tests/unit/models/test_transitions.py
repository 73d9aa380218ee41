import importlib.util
from datetime import UTC, datetime
from itertools import pairwise, product
from pathlib import Path
from types import ModuleType

import pytest

from kohakuriver.models.abilities import Ability
from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import TaskState, TaskType
from kohakuriver.models.ids import TaskId
from kohakuriver.models.records import changed
from kohakuriver.models.spec.targets import Target
from kohakuriver.models.spec.task_files import TaskFile
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.transitions import (
    ENDED,
    FINAL,
    HOLDING,
    QUEUED,
    TRANSITIONS,
    ForbiddenTransition,
    is_permitted,
    steps_to,
)
from kohakuriver.models.vps import VpsSpec

S = TaskState
ROOT = Path(__file__).resolve().parents[3]
AT = datetime(2026, 1, 1, tzinfo=UTC)

CONTRACT = {
    S.PENDING_APPROVAL: {S.PENDING, S.REJECTED, S.KILLED},
    S.REJECTED: set(),
    S.PENDING: {S.ASSIGNING, S.KILLED, S.FAILED},
    S.ASSIGNING: {S.RUNNING, S.PENDING, S.FAILED, S.KILLED, S.LOST},
    S.RUNNING: {S.PAUSED, S.COMPLETED, S.FAILED, S.KILLED, S.KILLED_OOM, S.LOST},
    S.PAUSED: {S.RUNNING, S.KILLED, S.LOST},
    S.COMPLETED: set(),
    S.FAILED: set(),
    S.KILLED: set(),
    S.KILLED_OOM: set(),
    S.STOPPED: set(),
    S.LOST: {S.PENDING, S.RUNNING, S.PAUSED, S.COMPLETED, S.FAILED, S.KILLED, S.KILLED_OOM},
}
"""The table of the contract for command tasks, written a second time on purpose."""
VPS_TOO = {
    (S.RUNNING, S.STOPPED),
    (S.PAUSED, S.STOPPED),
    (S.LOST, S.STOPPED),
    (S.STOPPED, S.ASSIGNING),
    (S.FAILED, S.ASSIGNING),
}


def task(state: TaskState, task_type: TaskType = TaskType.COMMAND) -> Task:
    return Task(TaskId(1), TaskSpec("true", task_type=task_type), state, "me", AT)


@pytest.mark.parametrize("before", TaskState)
def test_a_command_task_takes_the_steps_of_the_contract_and_no_other(before: TaskState) -> None:
    assert {after for after in TaskState if is_permitted(before, after)} == CONTRACT[before]


@pytest.mark.parametrize("before", TaskState)
def test_a_vps_can_also_be_stopped_and_restarted(before: TaskState) -> None:
    also = {after for was, after in VPS_TOO if was is before}
    assert {after for after in TaskState if is_permitted(before, after, is_vps=True)} == CONTRACT[
        before
    ] | also


def test_a_forbidden_step_raises_and_names_both_states_and_whose_it_was() -> None:
    ended = changed(task(S.COMPLETED), attempt=Attempt(3, "n1"))
    told = r"cannot go from completed to running: task 1, attempt 3, on n1$"
    with pytest.raises(ForbiddenTransition, match=told):
        ended.to(S.RUNNING)
    with pytest.raises(ForbiddenTransition, match=told):
        ended.steps_to(S.RUNNING)
    with pytest.raises(ForbiddenTransition, match="on no node"):
        task(S.RUNNING).to(S.STOPPED)
    assert task(S.RUNNING, TaskType.VPS).to(S.STOPPED).state is S.STOPPED


def test_a_step_makes_a_new_record_and_leaves_the_old_one() -> None:
    before = task(S.RUNNING)
    after = before.ended(S.FAILED, AT, "out of luck")
    assert (before.state, before.error_message, before.completed_at) == (S.RUNNING, None, None)
    assert (after.state, after.error_message, after.completed_at) == (S.FAILED, "out of luck", AT)


def test_nothing_leads_out_of_a_final_state_of_a_command_task() -> None:
    assert {state for state in TaskState if not CONTRACT[state]} == FINAL | {S.STOPPED} == ENDED


def test_each_state_waits_or_holds_or_has_ended() -> None:
    assert set(TaskState) == QUEUED | HOLDING | ENDED
    assert not QUEUED & HOLDING
    assert not QUEUED & ENDED
    assert not HOLDING & ENDED


@pytest.mark.parametrize("is_vps", [False, True])
def test_the_way_to_a_state_consists_of_permitted_steps(is_vps: bool) -> None:
    for before, after in product(TaskState, repeat=2):
        steps = steps_to(before, after, is_vps=is_vps)
        assert steps or not is_permitted(before, after, is_vps=is_vps)
        assert steps[-1:] in ((), (after,))
        for pair in pairwise((before, *steps)):
            assert is_permitted(*pair, is_vps=is_vps)


def test_an_end_that_is_learnt_late_leads_over_running() -> None:
    assert steps_to(S.PAUSED, S.FAILED) == (S.RUNNING, S.FAILED)
    assert steps_to(S.ASSIGNING, S.COMPLETED) == (S.RUNNING, S.COMPLETED)
    assert steps_to(S.LOST, S.FAILED) == (S.FAILED,)
    for state in FINAL | QUEUED:
        assert steps_to(state, S.COMPLETED) == ()


def test_the_demand_of_a_task_holds_the_gpus_of_its_target() -> None:
    assert TaskSpec("true", target=Target("n1", None, (2, 0))).demand.gpus == (0, 2)
    assert TaskSpec("true", required_gpus=(1, 0), target=Target("n1")).demand.gpus == (0, 1)


def test_only_an_environment_needs_shared_storage() -> None:
    assert TaskSpec("true", container_name="base").demand.needs == {Ability.SHARED_STORAGE}
    assert TaskSpec("true", registry_image="busybox").demand.needs == frozenset()


def test_a_vps_and_a_task_with_input_need_an_engine_for_it() -> None:
    image = TaskSpec("cat", registry_image="busybox")
    assert changed(image, vps=VpsSpec()).demand.needs == {Ability.VPS}
    assert changed(image, stdin=TaskFile.of(b"")).demand.needs == {Ability.INPUTS}
    assert changed(image, stdin=TaskFile(streams=True)).demand.needs == {Ability.INPUTS}


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("state_diagram", ROOT / "tools" / "state_diagram.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_diagram_in_the_docs_is_the_table() -> None:
    page = load_tool().render()
    assert (ROOT / "docs" / "design" / "task-states.md").read_text(encoding="utf-8") == page
    assert all(f"{before} --> {after}" in page for before in TaskState for after in TRANSITIONS[before])
