"""What systemd does to a cluster that its units serve: restarts, reloads, and the machine's reboot."""

import json
from collections.abc import Iterator

import pytest

from support.emulated.guest import Guest
from support.emulated.served import (
    HOST_UNIT,
    RUNNER_UNIT,
    await_node,
    begun_task,
    cgroup_of,
    container,
    inside,
    made_vps,
    main_pid,
    pipe_keepers,
)

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]

_ENGINE_SETTINGS = "/etc/docker/daemon.json"
_COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 1; done"


def _grows(guest: Guest, task_id: str) -> None:
    before = len(guest.output(task_id))
    guest.wait_for(lambda: len(guest.output(task_id)) > before, f"more output of task {task_id}")


def _pids(guest: Guest, task_id: str, vps: str) -> list[int]:
    """Of the first processes of both."""
    found = (container(guest, task_id), container(guest, vps, "vps"))
    return [facts["State"]["Pid"] for facts in found]


def _kill(guest: Guest, task_id: str) -> None:
    guest.api("POST", f"/api/kill/{task_id}")
    guest.await_task(task_id)


@pytest.mark.short
def test_units_run_the_daemons_and_systemd_finds_no_fault_in_them(served: Guest) -> None:
    for unit in (HOST_UNIT, RUNNER_UNIT):
        assert served.check("systemctl", "is-active", unit) == "active\n"
        assert served.check("systemctl", "is-enabled", unit) == "enabled\n"
        pid = main_pid(served, unit)
        assert served.read(f"/proc/{pid}/oom_score_adj") == "-500\n"
        said = served.run("systemd-analyze", "verify", f"/etc/systemd/system/{unit}.service")
        assert (said.status, said.stderr) == (0, "")


def test_tasks_vps_and_what_holds_their_pipes_outlive_a_restart_of_both_units(served: Guest) -> None:
    task_id = begun_task(served, _COUNT)
    vps = made_vps(served, "outlives")
    before = _pids(served, task_id, vps), pipe_keepers(served)
    served.check("systemctl", "restart", RUNNER_UNIT, HOST_UNIT)
    await_node(served)
    assert (_pids(served, task_id, vps), pipe_keepers(served)) == before
    assert served.task(task_id)["status"] == "running"
    assert served.task(vps)["status"] == "running"
    _grows(served, task_id)
    _kill(served, task_id)
    _kill(served, vps)


def test_a_killed_runner_is_started_again_by_its_unit_and_loses_nothing(served: Guest) -> None:
    task_id = begun_task(served, _COUNT)
    first = main_pid(served, RUNNER_UNIT)
    served.check("kill", "-KILL", str(first))
    served.wait_for(lambda: main_pid(served, RUNNER_UNIT) not in (0, first), "another runner")
    await_node(served)
    _grows(served, task_id)
    _kill(served, task_id)


def test_a_reload_of_systemd_changes_nothing_for_what_runs(served: Guest) -> None:
    task_id = begun_task(served, _COUNT, required_cores=1, required_memory_bytes=64 << 20)
    vps = made_vps(served, "reloaded")
    folder = cgroup_of(served, task_id)
    before = [served.read(f"{folder}/{name}") for name in ("memory.max", "cpu.max")]
    served.check("systemctl", "daemon-reload")
    assert [served.read(f"{folder}/{name}") for name in ("memory.max", "cpu.max")] == before
    # A reload gives groups' rules anew, those for devices among them.
    assert inside(served, vps, "echo word > /dev/null && head -c 1 /dev/zero | wc -c") == "1\n"
    _grows(served, task_id)
    _kill(served, task_id)
    _kill(served, vps)


def test_a_restart_of_the_engine_ends_tasks_as_lost_and_starts_vps_again(served: Guest) -> None:
    task_id, again = begun_task(served, _COUNT), begun_task(served, _COUNT, retries=1)
    vps = made_vps(served, "again")
    inside(served, vps, "echo kept > /file")
    served.check("systemctl", "restart", "docker")
    record = served.await_task(task_id, "failed")
    assert "the Docker engine or the node was restarted" in record["error_message"]
    served.wait_for(lambda: served.task(again)["attempt"] == 2, "the second attempt")
    served.await_task(again, "running")
    served.wait_for(lambda: _has_begun_again(served, vps), "the VPS to begin again")
    assert inside(served, vps, "cat /file") == "kept\n"
    _kill(served, again)
    _kill(served, vps)
    await_node(served)


@pytest.fixture
def living(served: Guest) -> Iterator[Guest]:
    """The machine with an engine whose containers outlive it."""
    served.check("tee", _ENGINE_SETTINGS, stdin=json.dumps({"live-restore": True}))
    served.check("systemctl", "reload", "docker")
    served.wait_for(lambda: served.engine("GET", "/info")["LiveRestoreEnabled"], "live-restore")
    yield served
    served.check("rm", _ENGINE_SETTINGS)
    served.check("systemctl", "restart", "docker")


def test_with_live_restore_a_restart_of_the_engine_ends_nothing(living: Guest) -> None:
    task_id = begun_task(living, _COUNT)
    vps = made_vps(living, "lives")
    before = _pids(living, task_id, vps)
    living.check("systemctl", "restart", "docker")
    await_node(living)
    assert _pids(living, task_id, vps) == before
    _grows(living, task_id)
    assert inside(living, vps, "echo in") == "in\n"
    _kill(living, task_id)
    _kill(living, vps)


@pytest.mark.short
def test_after_a_reboot_the_cluster_is_back_with_its_vps_and_tells_what_ended(served: Guest) -> None:
    task_id, again = begun_task(served, _COUNT), begun_task(served, _COUNT, retries=1)
    vps = made_vps(served, "rebooted")
    inside(served, vps, "echo kept > /file && sync")
    served.reboot()
    await_node(served)
    record = served.await_task(task_id, "failed")
    assert "the Docker engine or the node was restarted" in record["error_message"]
    served.wait_for(lambda: served.task(again)["attempt"] == 2, "the second attempt")
    served.await_task(again, "running")
    served.wait_for(lambda: _has_begun_again(served, vps), "the VPS to begin again")
    assert inside(served, vps, "cat /file") == "kept\n"
    _kill(served, again)
    _kill(served, vps)


def _has_begun_again(guest: Guest, vps: str) -> bool:
    (record,) = [each for each in guest.api("GET", "/api/vps") if each["task_id"] == vps]
    return record["status"] == "running" and "it was started again" in (record["notice"] or "")
