"""What people are told about a task that waits, and of its end, where its own output does not say it."""

from typing import Any

import msgspec
import pytest

from kohakuriver.cli.boundary import exit_status_of
from kohakuriver.cli.tasks.views import end_sentence, waiting_sentence
from kohakuriver.client.records import TaskRecord
from kohakuriver.models.errors import KohakuRiverError, ProgramMissing, ProgramNotExecutable
from kohakuriver.models.shared_sentences import PROCESS_EXCEEDED_MEMORY, TASK_EXCEEDED_MEMORY
from kohakuriver.models.spec.task_files import INPUT_CUT_OFF
from support.clients.stub_host import task_record

TASK = "310000000000004242"
CLOSED = [{"node": "n1", "reason": "the host cannot reach its runner"}]
MISSING = "exit status 127: the command 'x' was not found in the image"


def record(status: str, **fields: Any) -> TaskRecord:
    return msgspec.convert(task_record(TASK, status=status, **fields), TaskRecord)


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (record("pending_approval"), "waits for an operator's approval"),
        (record("pending", pending_reasons=CLOSED), "waits for room: n1: the host cannot reach its runner"),
        (record("pending"), "waits for room: it is in the queue"),
        (record("pending", error_message="no node can"), "waits: no node can"),
        (record("assigning", assigned_node="n1"), "starts on n1"),
        (
            record("assigning", assigned_node="n1", progress="pulling x: 3 MB"),
            "starts on n1: pulling x: 3 MB",
        ),
        (
            record("assigning", assigned_node="n1", pending_reasons=CLOSED),
            "starts on n1, which takes no work now: n1: the host cannot reach its runner",
        ),
    ],
)
def test_waiting_is_told_with_its_reason(task: TaskRecord, told: str) -> None:
    assert waiting_sentence(task) == f"task {TASK} {told}"


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (record("completed", exit_code=0), None),
        (record("failed", exit_code=3, error_message="exit status 3"), None),
        (
            record("completed", exit_code=0, error_message=PROCESS_EXCEEDED_MEMORY),
            f": {PROCESS_EXCEEDED_MEMORY}",
        ),
        (
            record("failed", exit_code=3, error_message=f"exit status 3; {PROCESS_EXCEEDED_MEMORY}"),
            f": {PROCESS_EXCEEDED_MEMORY}",
        ),
        (
            record("killed_oom", exit_code=137, error_message=TASK_EXCEEDED_MEMORY),
            f" ended as killed_oom: {TASK_EXCEEDED_MEMORY}",
        ),
        (record("failed", exit_code=127, error_message=MISSING), f" ended as failed: {MISSING}"),
        (record("failed", exit_code=126, error_message="not to run"), " ended as failed: not to run"),
        (record("failed", exit_code=0, error_message=INPUT_CUT_OFF), f" ended as failed: {INPUT_CUT_OFF}"),
        (record("failed", exit_code=None, error_message="no image"), " ended as failed: no image"),
        (record("killed", exit_code=137), " ended as killed"),
    ],
)
def test_an_end_is_told_where_the_commands_own_words_do_not(task: TaskRecord, told: str | None) -> None:
    assert end_sentence(task) == (told if told is None else f"task {TASK}{told}")


@pytest.mark.parametrize(("error", "status"), [(ProgramMissing("x"), 127), (ProgramNotExecutable("x"), 126)])
def test_a_command_that_cannot_be_run_ends_as_in_a_shell(error: KohakuRiverError, status: int) -> None:
    assert exit_status_of(error) == status
