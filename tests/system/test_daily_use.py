"""What a user does all day, on a machine with systemd and cgroup v2."""

import pytest

from support.emulated.guest import Guest
from support.emulated.served import Up

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]

_HOG = "x=a; while :; do x=$x$x$x$x; done"


def test_up_makes_a_cluster_and_runs_a_first_task(first_up: Up) -> None:
    assert first_up.answer.status == 0, first_up.answer.shown
    assert "Hello from task" in first_up.answer.stdout
    assert "The cluster runs." in first_up.answer.stdout


def test_the_engine_is_that_of_a_machine_with_systemd_and_control_groups_of_version_2(guest: Guest) -> None:
    facts = guest.engine("GET", "/info")
    assert (facts["CgroupDriver"], facts["CgroupVersion"]) == ("systemd", "2")


def test_what_a_command_says_is_printed_and_its_status_is_returned(served: Guest) -> None:
    done = served.run("kohakuriver", "run", "--", "sh", "-c", "echo hi; echo there >&2; exit 7")
    assert (done.status, done.stdout) == (7, "hi\n"), done.shown
    assert "there\n" in done.stderr


def test_a_task_that_takes_too_much_memory_is_killed_oom(served: Guest) -> None:
    task_id = served.submit("sh", "-c", _HOG, required_memory_bytes=32 << 20)
    record = served.await_task(task_id)
    assert (record["status"], record["exit_code"]) == ("killed_oom", 137)
