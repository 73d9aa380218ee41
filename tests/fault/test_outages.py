"""What becomes of a task while its runner is unreachable, or the host, both, the engine, the link between."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import pytest

from fault.evidence import opened_store
from support.cluster.cluster import wait_for
from support.lab.lab import Lab

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(300)]

LINES = 80
HEARD = 5
COUNT = (
    f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo $i; echo e$i >&2; sleep 0.1; "
    f"[ $i -ne {HEARD} ] || until [ -e /shared/GO-on ]; do sleep 0.1; done; "
    f"[ $i -ne {LINES // 2} ] || until [ -e /shared/GO ]; do sleep 0.1; done; done"
)
"""Counts on both streams, for about eight seconds; the second half waits until it is let go.

It also waits after the first lines. An engine that ends can lose the piece that it had read and not written
down (note 0007), so the counter is let on only once such an engine is gone.
"""
TIMEOUT_SECONDS = 6.0
"""Silence after which the lab's host gives a node up: six heartbeats of a second."""
CHECK_SECONDS = 1.0
SILENT = "node_silent"
"""How a task's history tells that its node was given up and the task is lost."""
STALE = "stale_report"
"""How it tells that a report of an old attempt came and changed nothing."""
BUSY_SECONDS = 3.0
"""How much later than it should a loop may wake up on a machine that does other things."""


@dataclass(frozen=True)
class Event:
    """One line of a task's history, in the order of commits; `at` by the host's clock."""

    at: datetime
    kind: str
    attempt: int


def history(lab: Lab, task_id: str) -> list[Event]:
    query = "SELECT at, kind, attempt FROM task_events WHERE task_id = ? ORDER BY id"
    with opened_store(lab.database) as store:
        rows = store(query, int(task_id))
    return [Event(datetime.fromtimestamp(at / 1e6, UTC), kind, attempt) for at, kind, attempt in rows]


def counted(prefix: str = "") -> bytes:
    return "".join(f"{prefix}{number}\n" for number in range(1, LINES + 1)).encode()


def kill_runner(lab: Lab, let_on: Callable[[], None]) -> None:
    let_on()
    lab.kill_runner("n1")
    lab.start_runner("n1")


def kill_host(lab: Lab, let_on: Callable[[], None]) -> None:
    let_on()
    lab.kill_host()
    lab.start_host()


def kill_both(lab: Lab, let_on: Callable[[], None]) -> None:
    let_on()
    lab.kill_host()
    lab.kill_runner("n1")
    lab.start_runner("n1")
    lab.start_host()


def kill_dockerd(lab: Lab, let_on: Callable[[], None]) -> None:
    lab.kill_dockerd("n1")
    let_on()
    lab.start_dockerd("n1")


def kill_everything(lab: Lab, let_on: Callable[[], None]) -> None:
    lab.kill_dockerd("n1")
    kill_both(lab, let_on)
    lab.start_dockerd("n1")


@pytest.mark.parametrize("outage", [kill_runner, kill_host, kill_both, kill_dockerd, kill_everything])
def test_a_task_that_counts_keeps_every_line_once_over_a_kill(
    lab: Lab, outage: Callable[[Lab, Callable[[], None]], None]
) -> None:
    go = f"go-{uuid.uuid4().hex[:8]}"
    task_id = lab.submit("sh", "-c", COUNT.replace("GO", go), targets=["n1"])

    def heard() -> bool:
        outputs = [lab.output(task_id, stream) for stream in ("stdout", "stderr")]
        return all(output.count(b"\n") >= HEARD for output in outputs)

    wait_for(heard, "the first lines")
    outage(lab, (lab.shared / "shared_data" / f"{go}-on").touch)
    (lab.shared / "shared_data" / go).touch()
    record = lab.finished(task_id)
    assert (record["status"], record["exit_code"], record["attempt"]) == ("completed", 0, 1)
    assert lab.output(task_id) == counted()
    assert lab.output(task_id, "stderr") == counted("e")
    assert (record["stdout_bytes"], record["stderr_bytes"]) == (len(counted()), len(counted("e")))


def test_a_task_that_ends_while_its_runner_is_unreachable_ends_as_it_did(lab: Lab) -> None:
    work = Held(lab, "exit 7", targets=["n1"])
    lab.await_state(work.task_id, "running")
    lab.kill_runner("n1")
    work.let_go(1)
    wait_for(lambda: not work.runs_on("n1"), "the command to end")
    lab.start_runner("n1")
    record = lab.finished(work.task_id)
    assert (record["status"], record["exit_code"]) == ("failed", 7)
    assert lab.output(work.task_id) == b"attempt 1\n"


class Held:
    """A task whose attempts each say so in a file, and run until they are let go."""

    def __init__(self, lab: Lab, last: str = "exit 0", **fields: object) -> None:
        self._lab = lab
        self._file = f"held-{uuid.uuid4().hex[:8]}"
        held = f"until [ -e /shared/{self._file}.go$KOHAKURIVER_ATTEMPT ]; do sleep 0.1; done"
        told = f"echo attempt $KOHAKURIVER_ATTEMPT; echo $KOHAKURIVER_ATTEMPT >> /shared/{self._file}"
        self.task_id = lab.submit("sh", "-c", f"{told}; {held}; {last}", required_cores=0, **fields)

    def let_go(self, attempt: int) -> None:
        (self._lab.shared / "shared_data" / f"{self._file}.go{attempt}").touch()

    def starts(self) -> list[str]:
        """The attempts that have begun, as their commands say."""
        return (self._lab.shared / "shared_data" / self._file).read_text().split()

    def runs_on(self, node: str) -> bool:
        containers = self._lab.nodes[node].docker.run("ps", "--format", "{{.Names}}").split()
        return f"kohakuriver-task-{self.task_id}" in containers

    def is_on(self, node: str) -> bool:
        """Whether the node still has its container, running or not."""
        containers = self._lab.nodes[node].docker.run("ps", "--all", "--format", "{{.Names}}").split()
        return f"kohakuriver-task-{self.task_id}" in containers


@dataclass(frozen=True)
class CutOff:
    """What runs on a node that is cut off: `fixed` without retries, the others with.

    `last_beat`: when the host last heard of the node.
    """

    fixed: Held
    moving: Held
    ending: Held
    last_beat: datetime


@pytest.fixture
def cut_off(lab: Lab) -> Iterator[CutOff]:
    """Node n1 with three tasks, cut off, and given up by the host."""
    for node in ("n2", "n3"):
        lab.api("POST", f"/api/nodes/{node}/drain", json={})
    tasks = [Held(lab), Held(lab, retries=1), Held(lab, retries=1)]
    for task in tasks:
        assert lab.await_state(task.task_id, "running")["assigned_node"] == "n1"
        wait_for(partial(lab.output, task.task_id), "its command to say so")
    for node in ("n2", "n3"):
        lab.api("POST", f"/api/nodes/{node}/undrain")
    lab.cut("n1")
    lab.await_node("n1", "offline")
    fixed, moving, ending = tasks
    yield CutOff(fixed, moving, ending, last_beat(lab, "n1"))
    lab.mend("n1")
    for task in tasks:
        for attempt in (1, 2):
            task.let_go(attempt)
        lab.finished(task.task_id)


def last_beat(lab: Lab, node: str) -> datetime:
    listed = lab.api("GET", "/api/nodes")
    return datetime.fromisoformat(next(n["last_heartbeat"] for n in listed if n["hostname"] == node))


def kinds_with(lab: Lab, task: Held, kind: str) -> list[str]:
    """The kinds of all events of the task, once that one is among them."""
    kinds = [event.kind for event in history(lab, task.task_id)]
    return kinds if kind in kinds else []


def second_attempt_speaks(lab: Lab, task: Held) -> bool:
    return lab.output(task.task_id) == b"attempt 2\n"


def test_tasks_of_a_silent_node_are_lost_in_time(lab: Lab, cut_off: CutOff) -> None:
    for task in (cut_off.fixed, cut_off.moving, cut_off.ending):
        told = history(lab, task.task_id)
        (lost,) = (event for event in told if event.kind == SILENT)
        silence_seconds = (lost.at - cut_off.last_beat).total_seconds()
        assert TIMEOUT_SECONDS <= silence_seconds <= TIMEOUT_SECONDS + CHECK_SECONDS + BUSY_SECONDS
    assert lab.status(cut_off.fixed.task_id)["status"] == "lost"


def test_work_with_retries_runs_elsewhere_and_what_comes_back_changes_nothing(
    lab: Lab, cut_off: CutOff
) -> None:
    moved = (cut_off.moving, cut_off.ending)
    for task in moved:
        wait_for(partial(second_attempt_speaks, lab, task), "a second attempt")
        assert lab.status(task.task_id)["assigned_node"] in ("n2", "n3")
    # The old attempt ends by itself where nobody hears of it, with a result of its own.
    cut_off.ending.let_go(1)
    wait_for(lambda: not cut_off.ending.runs_on("n1"), "the old attempt to end")

    beats = {cut_off.last_beat}

    def old_attempt_has_ended() -> bool:
        beats.add(last_beat(lab, "n1"))
        return not cut_off.moving.runs_on("n1")

    lab.mend("n1")
    wait_for(old_attempt_has_ended, "the old attempt to be ended")
    assert len(beats) <= 1 + 2 + 1, "the one before the cut, two, and one that came as it was ending"
    wait_for(lambda: not any(task.is_on("n1") for task in moved), "the old containers to be removed")
    lab.await_state(cut_off.fixed.task_id, "running")

    for task in moved:
        record = lab.status(task.task_id)
        assert (record["status"], record["attempt"]) == ("running", 2)
        told = wait_for(partial(kinds_with, lab, task, STALE), "its old attempt's report to arrive")
        after_the_loss = [kind for kind in told[told.index(SILENT) :] if kind != STALE]
        assert after_the_loss == [SILENT, "retried", "assigning", "running"]
        task.let_go(2)
        record = lab.finished(task.task_id)
        assert (record["status"], record["exit_code"], record["attempt"]) == ("completed", 0, 2)
        assert lab.output(task.task_id) == b"attempt 2\n"
        assert task.starts() == ["1", "2"]
    cut_off.fixed.let_go(1)
    lab.finished(cut_off.fixed.task_id)
    wait_for(lambda: not lab.leftovers("n1"), "everything to be given back")


def test_work_without_retries_goes_on_when_its_node_comes_back(lab: Lab, cut_off: CutOff) -> None:
    task = cut_off.fixed
    lab.mend("n1")
    assert lab.await_state(task.task_id, "running")["attempt"] == 1
    task.let_go(1)
    record = lab.finished(task.task_id)
    assert (record["status"], record["exit_code"], record["attempt"]) == ("completed", 0, 1)
    kinds = kinds_with(lab, task, SILENT)
    assert kinds[kinds.index(SILENT) :] == [SILENT, "found_again", "completed"]
    assert task.starts() == ["1"]
