"""What all lanes share: asyncio, missing engines, hypothesis profiles, tests of one file on one worker."""

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

_ENGINE_PROBE = Path(__file__).parents[1] / "tools" / "engine_answers.py"
_IN_CI = os.environ.get("CI", "").lower() not in {"", "0", "false"}
_NEEDS = ("docker", "root")
# Made once in a session: the more workers asked for one, the more often it would be made.
_SHARED_FIXTURES = ("cluster", "contrast", "guest", "lab")

# The machine is shared, so time says nothing about a single example. In CI the examples are always the same
# ones: a failure there is the submission's own, and new examples are found on developers' machines.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if _IN_CI else "local")


def pytest_configure() -> None:
    """Have all runs alike, whatever started them.

    Files that tests make can be read by the other users that are in them, though the umask be 077. And the
    processes that tests start hear all signals, while this one still ignores what it did.

    A shell without job control, such as a script's or make's, starts what stands before a `&` with SIGINT and
    SIGQUIT ignored, and `nohup` does so with SIGHUP. Every process below inherits that, down to those in the
    containers of a daemon. What is handled here instead is not inherited by a new program.
    """
    os.umask(0o022)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@functools.cache
def _engine_answers() -> bool:
    return subprocess.run([sys.executable, _ENGINE_PROBE], check=False).returncode == 0


def _lacking(item: pytest.Item) -> str | None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        return "needs root"
    if item.get_closest_marker("docker") and not _engine_answers():
        return "no Docker engine answers (make setup starts one)"
    return None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep tests that share an expensive fixture, and those of one file, on one worker.

    Two of the same cluster would have nodes of the same names on one engine, and end each other's work.
    """
    if item.get_closest_marker("xdist_group") is None:
        shared = [name for name in _SHARED_FIXTURES if name in getattr(item, "fixturenames", ())]
        item.add_marker(pytest.mark.xdist_group(shared[0] if shared else item.nodeid.split("::", 1)[0]))


def pytest_collection_finish(session: pytest.Session) -> None:
    """A worker that knows of no groups would let another one make the same cluster beside it."""
    if session.config.getoption("loadgroup", False) and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("pytest-xdist does not see which tests belong together; check the versions")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture: what the machine lacks is said in a line, and not by a fixture's traceback."""
    lacking = _lacking(item)
    if lacking is not None:
        pytest.skip(lacking)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test that needs an engine or root and did not run has failed, whatever its own reason was."""
    report = yield
    needed = [name for name in _NEEDS if item.get_closest_marker(name)]
    if _IN_CI and needed and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"CI must be able to run tests that need {' and '.join(needed)}: {reason}"
    return report
