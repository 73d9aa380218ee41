"""Seeded schedules of faults: what breaks, where, from when to when. Pure.

Rules, which the campaign relies on: the same arguments give the same schedule; every fault is mended before
the end; no part of the cluster (`lane`) has two faults at once, while different parts may, up to
`MOST_AT_ONCE`; what a kind is about tells which parts it touches. Kinds are dealt from a shuffled deck, so
that a schedule which is long enough holds all of them; one that finds no room is left out of its round.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

HOST = "host"
MOST_AT_ONCE = 3
SPACING_SECONDS = 3.0
"""Mean time between the beginnings of two faults."""
QUIET_START_SECONDS = 1.0
_TRIES = 8


class FaultKind(StrEnum):
    """What can break. `*_HOST` has the host as its place, all others a node."""

    KILL_HOST = "kill_host"
    KILL_RUNNER = "kill_runner"
    STOP_RUNNER = "stop_runner"
    KILL_BOTH = "kill_both"
    KILL_DOCKERD = "kill_dockerd"
    STOP_DOCKERD = "stop_dockerd"
    CUT = "cut"
    CUT_TO_HOST = "cut_to_host"
    CUT_FROM_HOST = "cut_from_host"
    FLAP = "flap"
    SLOW = "slow"
    LOSE = "lose"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    REPLAY = "replay"
    LOSE_ANSWERS = "lose_answers"
    FILL_HOST = "fill_host"
    FILL_NODE = "fill_node"
    CLOCK_HOST = "clock_host"
    CLOCK_NODE = "clock_node"


class Part(StrEnum):
    """A part of one place that holds at most one fault at a time."""

    PROCESS = "process"
    ENGINE = "engine"
    LINK = "link"
    DISK = "disk"
    CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class Shape:
    """How a kind looks: its part, how long it lasts (seconds), what its amount is chosen from."""

    part: Part
    least_seconds: float
    most_seconds: float
    amounts: tuple[int, ...] = (0,)


SHAPES: dict[FaultKind, Shape] = {
    FaultKind.KILL_HOST: Shape(Part.PROCESS, 0.1, 6.0),
    FaultKind.KILL_RUNNER: Shape(Part.PROCESS, 0.1, 12.0),
    FaultKind.STOP_RUNNER: Shape(Part.PROCESS, 0.1, 4.0),
    FaultKind.KILL_BOTH: Shape(Part.PROCESS, 0.5, 5.0),
    FaultKind.KILL_DOCKERD: Shape(Part.ENGINE, 0.1, 5.0),
    FaultKind.STOP_DOCKERD: Shape(Part.ENGINE, 0.5, 5.0),
    FaultKind.CUT: Shape(Part.LINK, 1.0, 18.0),
    FaultKind.CUT_TO_HOST: Shape(Part.LINK, 1.0, 18.0),
    FaultKind.CUT_FROM_HOST: Shape(Part.LINK, 1.0, 18.0),
    FaultKind.FLAP: Shape(Part.LINK, 4.0, 10.0, (2, 3, 5)),  # how often
    FaultKind.SLOW: Shape(Part.LINK, 3.0, 12.0, (50, 200, 800)),  # milliseconds
    FaultKind.LOSE: Shape(Part.LINK, 3.0, 12.0, (2, 10, 30)),  # percent
    FaultKind.DUPLICATE: Shape(Part.LINK, 3.0, 15.0, (20, 60, 100)),  # percent
    FaultKind.REORDER: Shape(Part.LINK, 3.0, 15.0, (20, 60)),  # percent
    FaultKind.REPLAY: Shape(Part.LINK, 5.0, 20.0, (20, 60)),  # percent
    FaultKind.LOSE_ANSWERS: Shape(Part.LINK, 3.0, 10.0, (30, 80)),  # percent
    FaultKind.FILL_HOST: Shape(Part.DISK, 1.0, 6.0),
    FaultKind.FILL_NODE: Shape(Part.DISK, 1.0, 8.0),
    FaultKind.CLOCK_HOST: Shape(Part.CLOCK, 2.0, 12.0, (-3600, 3600)),  # seconds
    FaultKind.CLOCK_NODE: Shape(Part.CLOCK, 2.0, 12.0, (-3600, 3600)),  # seconds
}

AT_HOST = frozenset({FaultKind.KILL_HOST, FaultKind.FILL_HOST, FaultKind.CLOCK_HOST})
"""Kinds whose place is the host."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; times are seconds from the start of the campaign. `amount`: see `SHAPES`."""

    kind: FaultKind
    place: str
    begins: float
    ends: float
    amount: int = 0

    @property
    def lanes(self) -> frozenset[tuple[str, Part]]:
        """The parts of the cluster that it holds."""
        lanes = {(self.place, SHAPES[self.kind].part)}
        if self.kind is FaultKind.KILL_BOTH:
            lanes.add((HOST, Part.PROCESS))
        return frozenset(lanes)

    def overlaps(self, other: "Fault") -> bool:
        return self.begins < other.ends and other.begins < self.ends

    def __str__(self) -> str:
        amount = f" {self.amount}" if self.amount else ""
        return f"{self.begins:7.2f} to {self.ends:7.2f} s: {self.kind.value}{amount} at {self.place}"


def make_schedule(
    seed: int, seconds: float, nodes: Sequence[str], kinds: Sequence[FaultKind] = tuple(FaultKind)
) -> tuple[Fault, ...]:
    """Return faults by their beginning, all of them mended within `seconds`."""
    dice = random.Random(f"faults {seed}")
    faults: list[Fault] = []
    deck = _deck(dice, kinds)
    moment = QUIET_START_SECONDS
    while moment < seconds:
        fault = _fitting(dice, deck, faults, (moment, seconds, nodes))
        if fault is not None:
            faults.append(fault)
        moment += dice.uniform(0.3, 1.7) * SPACING_SECONDS
    return tuple(faults)


def steps(faults: Sequence[Fault]) -> list[tuple[float, bool, Fault]]:
    """Return (second, whether it breaks, fault) for all that is to be done, in the order of time.

    A link that flaps is cut and mended as often as its amount says. What is mended at the same moment as
    something breaks is mended first.
    """
    row: list[tuple[float, bool, Fault]] = []
    for fault in faults:
        times = fault.amount if fault.kind is FaultKind.FLAP else 1
        part_seconds = (fault.ends - fault.begins) / (2 * times - 1)
        for number in range(times):
            begins = fault.begins + 2 * number * part_seconds
            last = number == times - 1
            row.append((begins, True, fault))
            row.append((fault.ends if last else begins + part_seconds, False, fault))
    return sorted(row, key=lambda step: (step[0], step[1]))


def as_rows(faults: Sequence[Fault]) -> list[dict[str, object]]:
    """The schedule as JSON can hold it."""
    return [asdict(fault) for fault in faults]


def _deck(dice: random.Random, kinds: Sequence[FaultKind]) -> Iterator[FaultKind]:
    while True:
        yield from dice.sample(list(kinds), len(kinds))


def _fitting(
    dice: random.Random,
    deck: Iterator[FaultKind],
    faults: Sequence[Fault],
    frame: tuple[float, float, Sequence[str]],
) -> Fault | None:
    """Deal kinds until one fits beside what is broken already; None if none of some does."""
    moment, seconds, nodes = frame
    for _ in range(_TRIES):
        kind = next(deck)
        shape = SHAPES[kind]
        fault = Fault(
            kind,
            HOST if kind in AT_HOST else dice.choice(list(nodes)),
            round(moment, 2),
            round(moment + dice.uniform(shape.least_seconds, shape.most_seconds), 2),
            dice.choice(shape.amounts),
        )
        if fault.ends <= seconds and _has_room(fault, faults):
            return fault
    return None


def _has_room(fault: Fault, faults: Sequence[Fault]) -> bool:
    beside = [other for other in faults if fault.overlaps(other)]
    return len(beside) < MOST_AT_ONCE and not any(fault.lanes & other.lanes for other in beside)
