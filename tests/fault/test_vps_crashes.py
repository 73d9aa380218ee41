"""kill -9 of the runner while a VPS is made or stopped: one is made, and what was in it is kept."""

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from fault.crash_scenarios import Scenario, Trigger, scenarios
from fault.crash_stage import see_dead, start_again, start_armed
from support.cluster.cluster import Cluster, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(300)]
_NODE = f"kr-vps-{os.getpid()}"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("vps"))
    try:
        cluster.start_host(HEARTBEAT_TIMEOUT_FACTOR=100)
        cluster.add_runner(_NODE, SANDBOX_POOL_SIZE=0)
        yield cluster
    finally:
        cluster.stop()


def inside(vps: str, command: str) -> str:
    argv = ["docker", "exec", f"kohakuriver-vps-{vps}", "/bin/sh", "-c", command]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("scenario", [s for s in scenarios() if s.trigger is Trigger.VPS_STOP], ids=str)
def test_a_runner_that_dies_while_a_vps_is_stopped_loses_nothing_of_it(
    cluster: Cluster, scenario: Scenario
) -> None:
    runner = cluster.runners[_NODE]
    vps = cluster.api("POST", "/api/vps/create", json={"target_hostname": _NODE})["task_id"]
    cluster.await_state(vps, "running")
    inside(vps, "echo kept > /precious")
    runner.end(signal.SIGKILL)
    start_armed(runner, scenario)
    cluster.await_node(_NODE)
    cluster.api("POST", f"/api/vps/stop/{vps}")
    see_dead(runner, scenario)
    start_again(runner, scenario)
    cluster.await_state(vps, "stopped")
    wait_for(lambda: not containers_of(vps), "the container to be gone")
    wait_for(lambda: not cluster.await_node(_NODE)["faults"], "the node to take work")
    # What it told before it died is enough for all of the above: it may not answer yet.
    listed = f"/api/vps/snapshots/{vps}"
    wait_for(lambda: cluster.client.get(listed).status_code == 200, "the runner to answer")
    assert cluster.api("GET", listed)["snapshots"]
    cluster.api("POST", f"/api/vps/restart/{vps}")
    cluster.await_state(vps, "running")
    assert inside(vps, "cat /precious") == "kept\n"
    cluster.api("POST", f"/api/kill/{vps}")
    cluster.await_state(vps, "killed")
    wait_for(lambda: not containers_of(vps), "the container to be gone")
    cluster.api("DELETE", f"/api/vps/snapshots/{vps}")


@pytest.mark.parametrize("scenario", [s for s in scenarios() if s.trigger is Trigger.NEW_VPS], ids=str)
def test_a_runner_that_dies_while_it_makes_a_vps_goes_on_with_it_and_makes_one(
    cluster: Cluster, scenario: Scenario
) -> None:
    runner = cluster.runners[_NODE]
    runner.end(signal.SIGKILL)
    start_armed(runner, scenario)
    cluster.await_node(_NODE)
    vps = cluster.api("POST", "/api/vps/create", json={"target_hostname": _NODE})["task_id"]
    see_dead(runner, scenario)
    start_again(runner, scenario)
    cluster.await_state(vps, "running")
    assert len(containers_of(vps)) == 1
    wait_for(lambda: len(listed(f"kohakuriver.node={_NODE}", "kohakuriver.sandbox")) == 1, "one sandbox")
    cluster.api("POST", f"/api/kill/{vps}")
    cluster.await_state(vps, "killed")
    wait_for(lambda: not listed(f"kohakuriver.node={_NODE}"), "everything of it to be gone")


def containers_of(vps: str) -> list[str]:
    return listed(f"kohakuriver.task_id={vps}")


def listed(*labels: str) -> list[str]:
    """Ids of the containers that have all of these labels."""
    argv = ["docker", "ps", "-aq", *(f"--filter=label={label}" for label in labels)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
