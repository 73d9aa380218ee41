"""A node that reaches its host, while the host does not reach the node: a firewall in between."""

from typing import Any

import pytest

from fault.test_outages import Held
from support.cluster.cluster import wait_for
from support.lab.lab import Lab

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(300)]


def node(lab: Lab, name: str) -> dict[str, Any]:
    return next(one for one in lab.api("GET", "/api/nodes") if one["hostname"] == name)


def is_shown(lab: Lab, name: str) -> bool:
    shown = node(lab, name)
    return shown["status"] == "online" and any("cannot reach its runner" in f for f in shown["faults"])


def test_a_node_that_joins_behind_a_firewall_says_so_and_gets_no_work(lab: Lab) -> None:
    lab.stop_runner("n2")
    lab.nodes["n2"].relay.end()  # it keeps connections of the host that end with it
    lab.cut_port("n2")
    lab.start_runner("n2")
    wait_for(lambda: is_shown(lab, "n2"), "the node to be shown as one that cannot be called", 60)
    held = lab.submit("true", targets=["n2"])
    record = lab.status(held)
    assert record["status"] == "pending"
    assert "cannot reach its runner" in record["pending_reasons"][0]["reason"]
    others = [lab.finished(lab.submit("true", required_cores=0)) for _ in range(3)]
    assert {(task["status"], task["assigned_node"] == "n2") for task in others} == {("completed", False)}
    lab.mend("n2")
    assert lab.finished(held)["assigned_node"] == "n2"
    assert node(lab, "n2")["faults"] == []


def test_work_of_a_node_whose_port_closes_can_be_killed_and_goes_elsewhere(lab: Lab) -> None:
    running = Held(lab, targets=["n2"])
    lab.await_state(running.task_id, "running")
    lab.cut_port("n2", refuse=True)
    caught = lab.submit("true", targets=["n2"])
    wait_for(lambda: is_shown(lab, "n2"), "the node to be shown as one that cannot be called", 60)
    back = lab.await_state(caught, "pending", 60)
    assert "cannot reach its runner" in back["pending_reasons"][0]["reason"]
    lab.api("POST", f"/api/kill/{caught}")
    assert lab.status(caught)["status"] == "killed"
    lab.api("POST", f"/api/kill/{running.task_id}")
    assert lab.finished(running.task_id)["status"] == "killed"
    lab.mend("n2")
    after = lab.finished(lab.submit("true", targets=["n2"]))
    assert (after["status"], after["attempt"]) == ("completed", 1)
