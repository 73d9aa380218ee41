"""The lane is worth what it finds: with a mend of an old fault taken out, it finds that fault again.

Each case copies the sources, changes the line that mends one fault, and runs the test that must fail then. It
searches at random: which examples the lane always takes changes with each field of a message.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = Path("kohakuriver")
NODES, STREAMS = "tests/fuzz/test_from_nodes.py", "tests/fuzz/test_streams.py"
LIVES = f"{NODES}::test_the_host_lives_whatever_a_node_says"

MENDS = {
    "a port of 99999": (
        "wire/node_url.py",
        "if not 1 <= port <= 65535:",
        "if match is None:",
        f"{NODES}::test_a_registration_that_was_taken_can_be_dialled",
    ),
    "nested brackets": (
        "wire/messages.py",
        "except RecursionError:",
        "except ZeroDivisionError:",
        f"{NODES}::test_what_is_no_message_does_not_fit",
    ),
    "a time without zone": (
        "wire/bounds.py",
        "Moment = Annotated[datetime, Meta(tz=True)]",
        "Moment = Annotated[datetime, Meta()]",
        LIVES,
    ),
    "a number of 2^63": (
        "wire/bounds.py",
        "ExitCode = Annotated[int, Meta(ge=-(1 << 31), le=(1 << 32) - 1)]",
        "ExitCode = int",
        LIVES,
    ),
    "ids that follow a node": (
        "host/control/nodes/runner_control.py",
        "if beat.orders_seen > highest_id_at(now_ms + _CLOCK_SKEW_MS):",
        "if self._ids.pass_over(beat.orders_seen):",
        LIVES,
    ),
    "a negative size": (
        "streams/tar_end.py",
        "        return _decimal(digits)\n",
        "        return int(digits)\n",
        f"{STREAMS}::test_a_tar_stream_is_read_in_bounded_time_and_memory",
    ),
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("fault", MENDS)
def test_a_fault_is_found_again_when_its_mend_is_taken_out(fault: str, tmp_path: Path) -> None:
    file, mend, without, test = MENDS[fault]
    sources = tmp_path / "src"
    shutil.copytree(ROOT / "src", sources, ignore=shutil.ignore_patterns("__pycache__"))
    path = sources / PACKAGE / file
    text = path.read_text()
    assert text.count(mend) == 1, f"the mend stands elsewhere now: {mend}"
    path.write_text(text.replace(mend, without))
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "--timeout=300", "-p", "no:cacheprovider", test],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(sources), "FUZZ_FIRST": "1", "FUZZ_EXAMPLES": "2000"},
        capture_output=True,
        text=True,
        timeout=360,
        check=False,
    )
    assert found.returncode == 1, found.stdout[-3000:] + found.stderr[-1000:]
    assert "1 failed" in found.stdout, found.stdout[-3000:]
