"""Work that moves between nodes with an engine each: after a loss, by a drain, by a removal."""

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from support.cluster.cluster import BIN, wait_for
from support.lab.lab import Lab

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(400)]

UNTIL_TOLD = (
    "echo attempt $KOHAKURIVER_ATTEMPT; until [ -e /shared/go-$KOHAKURIVER_TASK_ID ]; do sleep 0.1; done"
)
"""A command that tells which attempt it is and runs until its task is let go."""


@pytest.fixture(autouse=True)
def _opens_all_nodes_again(lab: Lab) -> Iterator[None]:
    yield
    for node in lab.nodes:
        lab.client.post(f"/api/nodes/{node}/approve", json={})
        lab.client.post(f"/api/nodes/{node}/undrain")


def drain_all_but(lab: Lab, node: str) -> None:
    for other in set(lab.nodes) - {node}:
        lab.api("POST", f"/api/nodes/{other}/drain", json={})


def undrain_all(lab: Lab) -> None:
    for node in lab.nodes:
        lab.api("POST", f"/api/nodes/{node}/undrain")


def start(lab: Lab, node: str, **fields: Any) -> str:
    """Have a task run on that node that could run on the others as well."""
    drain_all_but(lab, node)
    task_id = lab.submit("sh", "-c", UNTIL_TOLD, **fields)
    assert lab.await_state(task_id, "running")["assigned_node"] == node
    undrain_all(lab)
    return task_id


def let_go(lab: Lab, task_id: str) -> dict[str, Any]:
    (lab.shared / "shared_data" / f"go-{task_id}").touch()
    return lab.finished(task_id)


def node_of_attempt(lab: Lab, task_id: str, attempt: int) -> str:
    """The node on which that attempt runs, once it does."""

    def there() -> str | None:
        record = lab.status(task_id)
        return (
            record["assigned_node"] if (record["status"], record["attempt"]) == ("running", attempt) else None
        )

    return str(wait_for(there, f"attempt {attempt} to run"))


def await_nothing_left(lab: Lab, node: str) -> None:
    def clean() -> bool:
        try:
            return not lab.leftovers(node)
        except subprocess.CalledProcessError:  # a container went away between being listed and looked at
            return False

    wait_for(clean, f"nothing to be left on {node}")


def test_a_task_of_a_node_that_died_runs_on_another_and_ends_there_alone(lab: Lab) -> None:
    task_id, plain = start(lab, "n1", retries=1), start(lab, "n1")
    lab.kill_runner("n1")
    assert node_of_attempt(lab, task_id, 2) != "n1"
    assert lab.await_state(plain, "lost")["assigned_node"] == "n1"
    lab.start_runner("n1")
    lab.await_node("n1")
    lab.await_state(plain, "running")
    assert let_go(lab, plain)["status"] == "completed"
    await_nothing_left(lab, "n1")
    record = let_go(lab, task_id)
    assert (record["status"], record["attempt"], record["retries_used"]) == ("completed", 2, 1)
    assert lab.output(task_id) == b"attempt 2\n"
    first = lab.client.get(f"/api/tasks/{task_id}/stdout", params={"attempt": 1})
    assert first.content == b"attempt 1\n"


def test_an_attempt_on_a_node_that_was_cut_off_is_ended_when_it_is_back(lab: Lab) -> None:
    task_id = start(lab, "n2", retries=1)
    lab.cut("n2")
    assert node_of_attempt(lab, task_id, 2) != "n2"
    lab.mend("n2")
    lab.await_node("n2")
    await_nothing_left(lab, "n2")
    record = let_go(lab, task_id)
    assert (record["status"], record["attempt"], record["exit_code"]) == ("completed", 2, 0)


def test_run_goes_on_with_the_attempt_that_follows(lab: Lab) -> None:
    drain_all_but(lab, "n1")
    script = "echo attempt $KOHAKURIVER_ATTEMPT; [ $KOHAKURIVER_ATTEMPT = 2 ] || sleep 600"
    following = subprocess.Popen(
        [str(BIN / "kohakuriver"), "run", "--name", "followed", "--retries", "1", "sh", "-c", script],
        env={**os.environ, **lab.cli_environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        task_id = wait_for(lambda: _running_task_named(lab, "followed"), "the task to run")
        undrain_all(lab)
        assert lab.cli("node", "drain", "n1", "--move", "--wait").returncode == 0
        out, err = following.communicate(timeout=90)
    finally:
        following.kill()
        following.wait()
    assert (following.returncode, out) == (0, b"attempt 1\nattempt 2\n"), err
    node = lab.status(task_id)["assigned_node"]
    assert node != "n1"
    assert f"attempt 2 of task {task_id} began on {node}".encode() in err


def _running_task_named(lab: Lab, name: str) -> str | None:
    found = lab.api("GET", "/api/tasks", params={"name": name, "status": "running"})
    return found[0]["task_id"] if found else None


def test_a_drain_moves_what_may_run_again_and_lets_the_rest_end(lab: Lab) -> None:
    moves, stays = start(lab, "n1", retries=1), start(lab, "n1")
    done = lab.cli("node", "drain", "n1", "--move")
    assert done.returncode == 0, done.stderr
    assert node_of_attempt(lab, moves, 2) != "n1"
    shown = lab.cli("node", "status", "n1").stdout.decode()
    assert stays in shown
    assert moves not in shown
    waiting = lab.submit("true", targets=["n1"])
    refused = lab.cli("node", "remove", "n1")
    assert refused.returncode != 0
    assert stays.encode() in refused.stderr
    assert let_go(lab, stays)["status"] == "completed"
    assert lab.cli("node", "drain", "n1", "--wait").returncode == 0
    assert lab.status(waiting)["status"] == "pending"
    assert lab.cli("node", "undrain", "n1").returncode == 0
    assert lab.finished(waiting)["status"] == "completed"
    record = let_go(lab, moves)
    assert (record["status"], record["retries_used"]) == ("completed", 0)
    await_nothing_left(lab, "n1")


def test_a_node_that_was_removed_by_force_runs_nothing_more_once_it_is_let_in_again(lab: Lab) -> None:
    again, fails = start(lab, "n1", retries=1), start(lab, "n1")
    done = lab.cli("node", "remove", "n1", "--force")
    assert done.returncode == 0, done.stderr
    assert node_of_attempt(lab, again, 2) != "n1"
    record = lab.status(fails)
    assert record["status"] == "failed"
    assert "n1 was removed" in record["error_message"]
    lab.await_node("n1", "pending")
    assert lab.cli("node", "approve", "n1").returncode == 0
    lab.await_node("n1")
    await_nothing_left(lab, "n1")
    assert let_go(lab, again)["status"] == "completed"
    assert lab.finished(lab.submit("true", targets=["n1"]))["status"] == "completed"
