"""The units of `init service` under the systemd that they are made for."""

import pytest

from support.emulated.guest import Guest
from support.emulated.served import HOST_UNIT, RUNNER_UNIT, main_pid

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]


def test_units_run_the_daemons_and_systemd_finds_no_fault_in_them(served: Guest) -> None:
    for unit in (HOST_UNIT, RUNNER_UNIT):
        assert served.check("systemctl", "is-active", unit) == "active\n"
        assert served.check("systemctl", "is-enabled", unit) == "enabled\n"
        pid = main_pid(served, unit)
        assert served.read(f"/proc/{pid}/oom_score_adj") == "-500\n"
        said = served.run("systemd-analyze", "verify", f"/etc/systemd/system/{unit}.service")
        assert (said.status, said.stderr) == (0, "")
