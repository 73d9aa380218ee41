"""Crash points: one kills its process when it is armed, at the passing that was asked for, and never else."""

import signal
import subprocess
import sys

import pytest

from fault.crash_scenarios import scenarios
from kohakuriver.crash_points import VARIABLE, CrashPoint, arm_from, reach
from kohakuriver.models.errors import InvalidInput

# An armed process cannot be disarmed, so each is armed in a process of its own.
_PROGRAM = """
import os, sys
from kohakuriver.crash_points import CrashPoint, arm_from, reach
arm_from(os.environ)
for name in sys.argv[1:]:
    reach(CrashPoint(name))
    print(name, flush=True)
"""


def _pass(wanted: str | None, *names: str) -> tuple[int, list[str]]:
    """Exit status of a process that passes the points, and the points after which it still lived."""
    environment = {} if wanted is None else {VARIABLE: wanted}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *names],
        env={"PYTHONPATH": ":".join(sys.path), **environment},
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout.decode().split()


def test_an_armed_point_kills_at_the_passing_that_was_asked_for() -> None:
    names = ("runner.end_seen", "runner.removing", "runner.end_seen", "runner.end_seen")
    assert _pass("runner.end_seen", *names) == (-signal.SIGKILL, [])
    assert _pass("runner.end_seen:2", *names) == (-signal.SIGKILL, list(names[:2]))


@pytest.mark.parametrize("wanted", [None, "", "host.stopped", "runner.end_seen:3"])
def test_a_point_that_is_not_armed_or_not_due_is_passed(wanted: str | None) -> None:
    names = ["runner.end_seen", "runner.removing", "runner.end_seen"]
    assert _pass(wanted, *names) == (0, names)


@pytest.mark.parametrize("wanted", ["runner.end", "runner.end_seen:x", ":1"])
def test_what_names_no_point_is_refused_and_arms_nothing(wanted: str) -> None:
    with pytest.raises(InvalidInput, match=VARIABLE):
        arm_from({VARIABLE: wanted})
    for point in CrashPoint:
        reach(point)


def test_every_point_is_died_at_by_a_scenario_of_the_fault_suite() -> None:
    assert {scenario.point for scenario in scenarios()} == set(CrashPoint)
    names = [str(scenario) for scenario in scenarios()]
    assert len(names) == len(set(names))
