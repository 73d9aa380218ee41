"""Carries a schedule's faults out on a cluster, in time, and mends all of them whatever happened before.

Rules: what concerns one part of the cluster is done in the order of the schedule, one thing after the other;
parts do not wait for each other (a runner's start may take as long as its link is cut). A process that ended
by itself is started again, as a service manager would do, and named in `complaints`.
"""

import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from fault.schedule import HOST, Fault, FaultKind, Part, steps

_HANDS = 16


class Breakable(Protocol):
    """What a campaign does to a cluster. Mending what is whole, or starting what runs, changes nothing."""

    def kill_host(self) -> None: ...
    def start_host(self) -> object: ...
    def kill_runner(self, node: str) -> None: ...
    def stop_runner(self, node: str) -> None: ...
    def start_runner(self, node: str) -> object: ...
    def kill_dockerd(self, node: str) -> None: ...
    def stop_dockerd(self, node: str) -> None: ...
    def start_dockerd(self, node: str) -> None: ...
    def cut(self, node: str, direction: str = "both") -> None: ...
    def slow(self, node: str, *, delay_ms: int = 0, loss_percent: float = 0) -> None: ...
    def disturb(self, node: str, **amounts: int) -> None: ...
    def mend(self, node: str) -> None: ...
    def fill_disk(self, where: str) -> None: ...
    def free_disk(self, where: str) -> None: ...
    def shift_clock(self, process: str, seconds: float) -> None: ...


_CUTS = {
    FaultKind.CUT: "both",
    FaultKind.FLAP: "both",
    FaultKind.CUT_TO_HOST: "to_host",
    FaultKind.CUT_FROM_HOST: "from_host",
}


def _kill_both(lab: Breakable, node: str) -> None:
    lab.kill_runner(node)
    lab.kill_host()


def break_part(lab: Breakable, fault: Fault) -> None:
    """Begin a fault."""
    node, amount = fault.place, fault.amount
    acts: dict[FaultKind, Callable[[], object]] = {
        FaultKind.KILL_HOST: lab.kill_host,
        FaultKind.KILL_RUNNER: lambda: lab.kill_runner(node),
        FaultKind.STOP_RUNNER: lambda: lab.stop_runner(node),
        FaultKind.KILL_BOTH: lambda: _kill_both(lab, node),
        FaultKind.KILL_DOCKERD: lambda: lab.kill_dockerd(node),
        FaultKind.STOP_DOCKERD: lambda: lab.stop_dockerd(node),
        FaultKind.SLOW: lambda: lab.slow(node, delay_ms=amount),
        FaultKind.LOSE: lambda: lab.slow(node, loss_percent=amount),
        FaultKind.DUPLICATE: lambda: lab.disturb(node, duplicate_percent=amount),
        FaultKind.REORDER: lambda: lab.disturb(node, reorder_percent=amount),
        FaultKind.REPLAY: lambda: lab.disturb(node, replay_percent=amount),
        FaultKind.LOSE_ANSWERS: lambda: lab.disturb(node, lose_answer_percent=amount),
        FaultKind.FILL_HOST: lambda: lab.fill_disk(HOST),
        FaultKind.FILL_NODE: lambda: lab.fill_disk(node),
        FaultKind.CLOCK_HOST: lambda: lab.shift_clock(HOST, amount),
        FaultKind.CLOCK_NODE: lambda: lab.shift_clock(node, amount),
    }
    if fault.kind in _CUTS:
        lab.cut(node, _CUTS[fault.kind])
    else:
        acts[fault.kind]()


def mend_part(lab: Breakable, fault: Fault) -> None:
    """End a fault."""
    for place, part in sorted(fault.lanes):
        _mend(lab, place, part)


def _mend(lab: Breakable, place: str, part: Part) -> None:
    match part:
        case Part.PROCESS:
            lab.start_host() if place == HOST else lab.start_runner(place)
        case Part.ENGINE:
            lab.start_dockerd(place)
        case Part.LINK:
            lab.mend(place)
        case Part.DISK:
            lab.free_disk(place)
        case Part.CLOCK:
            lab.shift_clock(place, 0)


class Breaker:
    """Runs one schedule; `done` faults are counted as they begin. Use it as a context manager."""

    def __init__(self, lab: Breakable, schedule: Sequence[Fault], say: Callable[[str], None]) -> None:
        self.done: list[Fault] = []
        self.complaints: list[str] = []
        self._lab = lab
        self._schedule = schedule
        self._say = say
        self._hands = ThreadPoolExecutor(_HANDS, thread_name_prefix="fault")
        self._last: dict[tuple[str, Part], Future[None]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="breaker", daemon=True)

    def __enter__(self) -> "Breaker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._hands.shutdown(wait=True, cancel_futures=False)

    def finish(self, seconds: float) -> None:
        """Wait until everything on the schedule was done."""
        self._thread.join(seconds)
        wait(self._last.values(), seconds)

    def _run(self) -> None:
        began = time.monotonic()
        for moment, breaks, fault in steps(self._schedule):
            if self._over.wait(max(0.0, began + moment - time.monotonic())):
                return
            self._hand_out(breaks, fault)

    def _hand_out(self, breaks: bool, fault: Fault) -> None:
        """Have it done once all that came before it on its parts is done."""
        before = [self._last[lane] for lane in fault.lanes if lane in self._last]
        future = self._hands.submit(self._do, breaks, fault, before)
        self._last.update(dict.fromkeys(fault.lanes, future))

    def _do(self, breaks: bool, fault: Fault, before: Iterable[Future[None]]) -> None:
        wait(before)
        self._say(f"{'break' if breaks else 'mend '} {fault}")
        try:
            if breaks:
                self.done.append(fault)
                break_part(self._lab, fault)
            else:
                mend_part(self._lab, fault)
        except Exception as error:  # noqa: BLE001 - boundary of one fault; the next ones are done all the same
            self.complaints.append(f"{'breaking' if breaks else 'mending'} {fault}: {_told(error)}")


def heal(lab: Breakable, nodes: Iterable[str]) -> list[str]:
    """Mend every part of everything; returns what could not be mended."""
    complaints: list[str] = []

    def attempt(act: Callable[..., Any], *arguments: object) -> None:
        try:
            act(lab, *arguments)
        except Exception as error:  # noqa: BLE001 - the rest is mended all the same
            complaints.append(f"healing {arguments}: {_told(error)}")

    names = list(nodes)
    for part in (Part.LINK, Part.DISK, Part.CLOCK, Part.ENGINE, Part.PROCESS):
        for place in (HOST, *names):
            if place != HOST or part in (Part.DISK, Part.CLOCK, Part.PROCESS):
                attempt(_mend, place, part)
    return complaints


def _told(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {str(error)[:2000]} ({where.filename}:{where.lineno})"
