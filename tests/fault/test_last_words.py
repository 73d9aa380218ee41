"""What a command writes and how it ends is known although neither runner nor engine was there to see it.

The commands end while both are down, or while one of them is and the other goes before it is back.
"""

import uuid
from collections.abc import Callable

import pytest

from support.cluster.cluster import wait_for
from support.engines.output_times import read_times, told_sizes
from support.lab.lab import Lab
from support.machine.processes import processes_naming

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(300)]

NODE = "n1"
LINES = 500
SCRIPT = (
    "echo first; until [ -e /shared/GO ]; do sleep 0.1; done; "
    f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo $i; echo e$i >&2; done; exit 3"
)
"""Waits until it is let go, and then says the rest at once."""


class Speaker:
    """A task that runs on the node and has its last words to say."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._go = f"go-{uuid.uuid4().hex[:8]}"
        self.task_id = lab.submit("sh", "-c", SCRIPT.replace("GO", self._go), targets=[NODE])
        wait_for(lambda: lab.output(self.task_id) == b"first\n", "its first word")

    def speak(self) -> None:
        """Let it say the rest; return when it has ended."""
        (self._lab.shared / "shared_data" / self._go).touch()
        wait_for(lambda: not processes_naming(self._go), "its end")


def both_away_and_the_engine_first(lab: Lab, speaker: Speaker) -> None:
    lab.kill_dockerd(NODE)
    lab.kill_runner(NODE)
    speaker.speak()
    lab.start_runner(NODE)
    lab.start_dockerd(NODE)


def both_away_and_the_runner_first(lab: Lab, speaker: Speaker) -> None:
    lab.kill_runner(NODE)
    lab.stop_dockerd(NODE)
    speaker.speak()
    lab.start_dockerd(NODE)
    lab.start_runner(NODE)


def a_runner_that_dies_before_the_engine_is_back(lab: Lab, speaker: Speaker) -> None:
    lab.stop_dockerd(NODE)
    speaker.speak()
    lab.kill_runner(NODE)
    lab.start_dockerd(NODE)
    lab.start_runner(NODE)


def a_runner_that_is_stopped_before_the_engine_is_back(lab: Lab, speaker: Speaker) -> None:
    lab.kill_dockerd(NODE)
    speaker.speak()
    lab.stop_runner(NODE)
    lab.start_runner(NODE)
    lab.start_dockerd(NODE)


def two_runners_that_die(lab: Lab, speaker: Speaker) -> None:
    lab.kill_dockerd(NODE)
    for _ in range(2):
        lab.kill_runner(NODE)
        lab.start_runner(NODE)
    speaker.speak()
    lab.kill_runner(NODE)
    lab.start_dockerd(NODE)
    lab.start_runner(NODE)


OUTAGES = [
    both_away_and_the_engine_first,
    both_away_and_the_runner_first,
    a_runner_that_dies_before_the_engine_is_back,
    a_runner_that_is_stopped_before_the_engine_is_back,
    two_runners_that_die,
]


@pytest.mark.parametrize("outage", OUTAGES)
def test_last_words_are_heard(lab: Lab, outage: Callable[[Lab, Speaker], None]) -> None:
    speaker = Speaker(lab)
    outage(lab, speaker)
    record = lab.finished(speaker.task_id)
    status_known = not lab.nodes[NODE].docker.forgets_ends()
    status = 3 if status_known else 255
    assert (record["status"], record["exit_code"], record["attempt"]) == ("failed", status, 1)
    assert status_known or "does not know how it ended" in record["error_message"]
    words = [str(number) for number in range(1, LINES + 1)]
    assert lab.output(speaker.task_id).decode().split() == ["first", *words]
    assert lab.output(speaker.task_id, "stderr").decode().split() == [f"e{word}" for word in words]
    folder = lab.shared / "logs" / speaker.task_id
    assert told_sizes(folder) == (record["stdout_bytes"], record["stderr_bytes"])
    when = [span.milliseconds for span in read_times(folder)]
    assert when[0] is not None
    assert when[-1] is None  # nobody was there to see it
    wait_for(lambda: not lab.leftovers(NODE), "everything to be given back")
