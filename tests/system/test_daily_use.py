"""What a user does all day, on a machine with systemd and cgroup v2."""

import pytest

from support.emulated.guest import Guest
from support.emulated.served import (
    RUNNER_SETTINGS,
    RUNNER_UNIT,
    Up,
    await_node,
    begun_task,
    cgroup_of,
    inside,
    made_vps,
)

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]

_HOG = "x=a; while :; do x=$x$x$x$x; done"


@pytest.mark.short
def test_up_makes_a_cluster_and_runs_a_first_task(first_up: Up) -> None:
    assert first_up.answer.status == 0, first_up.answer.shown
    assert "Hello from task" in first_up.answer.stdout
    assert "The cluster runs." in first_up.answer.stdout


def test_the_engine_is_that_of_a_machine_with_systemd_and_control_groups_of_version_2(guest: Guest) -> None:
    facts = guest.engine("GET", "/info")
    assert (facts["CgroupDriver"], facts["CgroupVersion"]) == ("systemd", "2")


@pytest.mark.short
def test_what_a_command_says_is_printed_and_its_status_is_returned(served: Guest) -> None:
    done = served.run("kohakuriver", "run", "--", "sh", "-c", "echo hi; echo there >&2; exit 7")
    assert (done.status, done.stdout) == (7, "hi\n"), done.shown
    assert "there\n" in done.stderr


@pytest.mark.short
def test_a_task_that_takes_too_much_memory_is_killed_oom(served: Guest) -> None:
    task_id = served.submit("sh", "-c", _HOG, required_memory_bytes=32 << 20)
    record = served.await_task(task_id)
    assert (record["status"], record["exit_code"]) == ("killed_oom", 137)


def test_a_child_that_is_killed_for_memory_is_mentioned(served: Guest) -> None:
    task_id = served.submit("sh", "-c", f"sh -c '{_HOG}'; exit 5", required_memory_bytes=32 << 20)
    record = served.await_task(task_id)
    assert (record["status"], record["exit_code"]) == ("failed", 5)
    assert "the kernel ended a process in it" in record["error_message"]


def test_pause_freezes_a_task_and_resume_thaws_it(served: Guest) -> None:
    task_id = begun_task(served, "i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done")
    frozen_file = f"{cgroup_of(served, task_id)}/cgroup.freeze"
    served.api("POST", f"/api/command/{task_id}/pause")
    served.await_task(task_id, "paused")
    assert served.read(frozen_file) == "1\n"
    frozen = served.output(task_id)
    served.api("POST", f"/api/command/{task_id}/resume")
    served.await_task(task_id, "running")
    assert served.read(frozen_file) == "0\n"
    served.wait_for(lambda: len(served.output(task_id)) > len(frozen), "output after the thaw")
    served.api("POST", f"/api/command/{task_id}/pause")
    served.await_task(task_id, "paused")
    served.api("POST", f"/api/kill/{task_id}")
    assert served.await_task(task_id)["status"] == "killed"


def test_what_a_task_asks_for_are_its_limits(served: Guest) -> None:
    task_id = begun_task(
        served, "echo begun; exec sleep 3600", required_cores=1, required_memory_bytes=64 << 20
    )
    folder = cgroup_of(served, task_id)
    assert served.read(f"{folder}/memory.max") == f"{64 << 20}\n"
    quota, period = served.read(f"{folder}/cpu.max").split()
    assert quota == period
    served.api("POST", f"/api/kill/{task_id}")
    served.await_task(task_id)


def test_tasks_of_the_runners_user_read_their_files_and_write_where_they_may(served: Guest) -> None:
    """The units' file mode mask (0077) is only that of the daemons' own files."""
    script = (
        "whoami && grep -q localhost /etc/hosts && cat /etc/resolv.conf > /dev/null"
        " && echo a > /shared/a && echo b > /local_temp/b && echo c > ~/c && cat /shared/a /local_temp/b ~/c"
    )
    settings = served.read(RUNNER_SETTINGS)
    served.check("tee", RUNNER_SETTINGS, stdin=f'{settings}\nRUNNER_USER = "nobody"\n')
    try:
        served.check("systemctl", "restart", RUNNER_UNIT)
        await_node(served)
        task_id = served.submit("sh", "-c", script)
        record = served.await_task(task_id)
        assert (record["exit_code"], served.output(task_id)) == (0, "nobody\na\nb\nc\n"), record
    finally:
        served.check("tee", RUNNER_SETTINGS, stdin=settings)
        served.check("systemctl", "restart", RUNNER_UNIT)


def test_a_vps_keeps_its_files_over_a_stop_and_a_restart(served: Guest) -> None:
    vps = made_vps(served, "kept")
    inside(served, vps, "echo kept > /file")
    assert served.check("kohakuriver", "exec", vps, "--", "cat", "/file") == "kept\n"
    served.check("kohakuriver", "vps", "stop", vps)
    served.check("kohakuriver", "vps", "restart", vps)
    assert inside(served, vps, "cat /file") == "kept\n"
    served.api("POST", f"/api/kill/{vps}")
    served.await_task(vps)
