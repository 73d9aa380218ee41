"""The units of `init service` under the systemd that they are made for, and over the machine's reboot."""

import pytest

from support.emulated.guest import Guest
from support.emulated.served import (
    HOST_UNIT,
    RUNNER_UNIT,
    await_node,
    begun_task,
    inside,
    made_session,
    main_pid,
)

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]

_COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 1; done"


def test_units_run_the_daemons_and_systemd_finds_no_fault_in_them(served: Guest) -> None:
    for unit in (HOST_UNIT, RUNNER_UNIT):
        assert served.check("systemctl", "is-active", unit) == "active\n"
        assert served.check("systemctl", "is-enabled", unit) == "enabled\n"
        pid = main_pid(served, unit)
        assert served.read(f"/proc/{pid}/oom_score_adj") == "-500\n"
        said = served.run("systemd-analyze", "verify", f"/etc/systemd/system/{unit}.service")
        assert (said.status, said.stderr) == (0, "")


def test_after_a_reboot_the_cluster_is_back_with_its_sessions_and_tells_what_ended(served: Guest) -> None:
    task_id, again = begun_task(served, _COUNT), begun_task(served, _COUNT, retries=1)
    session = made_session(served, "rebooted")
    inside(served, session, "echo kept > /file && sync")
    served.reboot()
    await_node(served)
    record = served.await_task(task_id, "failed")
    assert "the Docker engine or the node was restarted" in record["error_message"]
    served.wait_for(lambda: served.task(again)["attempt"] == 2, "the second attempt")
    served.await_task(again, "running")
    served.wait_for(lambda: _has_begun_again(served, session), "the session to begin again")
    assert inside(served, session, "cat /file") == "kept\n"
    _kill(served, again)
    _kill(served, session)


def _has_begun_again(guest: Guest, session: str) -> bool:
    (record,) = [each for each in guest.api("GET", "/api/vps") if each["task_id"] == session]
    return record["status"] == "running" and "it was started again" in (record["notice"] or "")


def _kill(guest: Guest, task_id: str) -> None:
    guest.api("POST", f"/api/kill/{task_id}")
    guest.await_task(task_id)
