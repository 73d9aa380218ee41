"""The whole cluster under everything that can go wrong between its parts: real control room, dispatcher,
agents and presence, a network that loses, delays and repeats, processes and machines that die, full disks.

Each step is a fault, what users do meanwhile, a while in which it works itself out, and messages that come
late. What must hold then, and in the end when nothing fails any more, is in `support.model.cluster`.
`KOHAKURIVER_MODEL_EXAMPLES` sets how many random histories are tried; some that random ones seldom come to
are written down.
"""

import os

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from support.model.cluster import ModelCluster
from support.model.events import (
    ACTS,
    FAULTS,
    LATE_MESSAGES,
    PAUSES,
    Ask,
    Astray,
    Cut,
    DiskFull,
    Drain,
    Event,
    EverythingComesBack,
    Finish,
    HostDies,
    LateMessage,
    Mend,
    Pause,
    Request,
    RunnerDies,
    Submit,
    Work,
)
from support.model.host import SILENCE_SECONDS
from support.model.lossy_network import Fate

EXAMPLES = int(os.environ.get("KOHAKURIVER_MODEL_EXAMPLES", "50"))
LONG = Pause(SILENCE_SECONDS)
REGISTERS_ONLY = (Fate.ARRIVES, Fate.ARRIVES, *(Fate.LOST,) * 8)
KILL, PAUSE, RESUME = (Ask(request, 0) for request in (Request.KILL, Request.PAUSE, Request.RESUME))


class ClusterMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cluster = ModelCluster()

    @initialize(works=st.lists(st.sampled_from(Work), min_size=2, max_size=4))
    def begin(self, works: list[Work]) -> None:
        for work in works:
            Submit(work).happen(self.cluster)

    @rule(
        fault=FAULTS,
        acts=st.lists(ACTS, max_size=2),
        pause=PAUSES,
        late=st.lists(LATE_MESSAGES, max_size=2),
    )
    def something_happens(self, fault: Event, acts: list[Event], pause: Event, late: list[Event]) -> None:
        for event in (fault, *acts, pause, *late):
            event.happen(self.cluster)

    @invariant()
    def promises_are_kept(self) -> None:
        self.cluster.check()

    def teardown(self) -> None:
        try:
            self.cluster.heal()
        finally:
            self.cluster.close()


TestCluster = ClusterMachine.TestCase
TestCluster.settings = settings(max_examples=EXAMPLES, stateful_step_count=25, deadline=None)

HISTORIES: dict[str, list[Event]] = {
    "an old attempt's report comes again while the next attempt runs on the same node": [
        *(Submit(Work.RETRIED_ON_N2), Cut("n2"), LONG, Finish(0, 1), Astray("n2", (), (Fate.REPEATED,) * 8)),
        Mend(),
        LONG,
        LONG,
        *[LateMessage()] * 8,
    ],
    "a heartbeat that was made before an order arrives after the order was taken": [
        *(Astray("n1", (), (Fate.LATE,)), Pause(12), Submit(Work.ON_N1), LateMessage()),
    ],
    "the refusal of an order arrives after its task was told to be killed": [
        *(Astray(node, (Fate.ANSWER_LATE,), ()) for node in ("n1", "n2", "n3")),
        *(Submit(Work.BADLY_MADE), KILL, LateMessage()),
    ],
    "a kill and a pause arrive together": [
        *(Submit(Work.ON_N1), Cut("n1"), PAUSE, KILL, Pause(3), Mend(), LONG),
    ],
    "a task is killed while its pause cannot be written down": [
        *(Submit(Work.ON_N1), DiskFull("n1", 2), PAUSE, KILL, LONG),
    ],
    "a lost task is killed, and its node comes back": [Submit(Work.ON_N1), Cut("n1"), LONG, KILL, Mend()],
    "a kill was on its way when the node fell silent": [
        *(Submit(Work.ON_N1), Cut("n1"), KILL, LONG, KILL, Mend()),
    ],
    "the host's clock is set back while a task is paused": [
        Submit(Work.ON_N1),
        *(Pause(12), PAUSE, HostDies(back=False), EverythingComesBack(-3600), RESUME, LONG),
    ],
    "a task ends by itself while a kill is on its way": [
        *(Submit(Work.ON_N1), Cut("n1", to_host=False), KILL, Finish(0, 0), LONG),
    ],
    "a task ends while its node is cut off": [Submit(Work.ON_N1), Cut("n1"), Finish(0, 3), LONG, Mend()],
    "an order arrives long after it was given up": [
        *(Astray("n1", (Fate.LATE,), ()), Submit(Work.ON_N1), RunnerDies("n1", back=False), LONG),
        *(EverythingComesBack(), LONG, LateMessage()),
    ],
    "an order comes again after all is done": [
        *(Astray("n1", (Fate.REPEATED,), ()), Submit(Work.ON_N1), Finish(0, 0), LONG, LateMessage()),
    ],
    "a node registers, and is silent from then on": [
        *(Submit(Work.ON_N1), Astray("n1", (), REGISTERS_ONLY), RunnerDies("n1"), Cut("n1"), LONG, LONG),
    ],
    "the disk is full when silence is to be recorded": [
        *(Submit(Work.ON_N1), DiskFull(None, 4), Cut("n1"), LONG, LONG),
    ],
    "a node is drained and its work moved while nothing gets through": [
        *(Submit(Work.RETRIED), Cut("n1"), Drain("n1", move=True), Pause(3), Mend(), LONG),
    ],
}


@pytest.mark.parametrize("history", HISTORIES)
def test_promises_are_kept_when(history: str) -> None:
    cluster = ModelCluster()
    try:
        for event in HISTORIES[history]:
            event.happen(cluster)
            cluster.check()
        cluster.heal()
    finally:
        cluster.close()
