"""The clients of a campaign: they submit, kill, ask again where no answer came, and write it all down.

Rules: what was answered 202 counts as accepted; what was refused (4xx) must not exist; where no answer came,
or the host answered that it cannot (5xx), the task may exist or not, and its client submits under a new name.
"""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum

import httpx2

from fault.workload import Work, submission

_CLIENTS = 6
_ANSWER_SECONDS = 10.0
_PAUSE_SECONDS = 0.5


class Outcome(StrEnum):
    """What a client knows of its submission."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class Submission:
    """One submission under one name. `task_id` where it was accepted; `detail`: what else was answered."""

    name: str
    work: Work
    outcome: Outcome
    task_id: str | None = None
    detail: str = ""

    def row(self) -> dict[str, object]:
        return asdict(self)


class Clients:
    """Submits works at their times. `submissions` grows; `kill_asked` holds ids whose kill was answered."""

    def __init__(self, open_client: Callable[[], httpx2.Client], trace_path: str) -> None:
        self.submissions: list[Submission] = []
        self.kill_asked: set[str] = set()
        self.complaints: list[str] = []
        self._open_client = open_client
        self._trace_path = trace_path
        self._lock = threading.Lock()
        self._over = threading.Event()

    def run(self, works: Sequence[Work], patience_seconds: float) -> None:
        """Return when each work was accepted and each kill answered; gives up after the patience."""
        began = time.monotonic()
        deadline = began + patience_seconds
        killers: list[threading.Thread] = []
        with ThreadPoolExecutor(_CLIENTS, thread_name_prefix="client") as pool:
            for work in works:
                self._over.wait(max(0.0, began + work.at - time.monotonic()))
                accepted = pool.submit(self._submit, work, deadline)
                if work.kill_after is not None:
                    killers.append(threading.Thread(target=self._kill_later, args=(accepted, work, deadline)))
                    killers[-1].start()
        for killer in killers:
            killer.join()

    def give_up(self) -> None:
        """End all waiting; what was not accepted by now will not be."""
        self._over.set()

    def _kill_later(self, accepted: "Future[str | None]", work: Work, deadline: float) -> None:
        task_id = accepted.result()
        if task_id is not None:
            self._over.wait(work.kill_after or 0)
            self.kill(task_id, deadline)

    def _submit(self, work: Work, deadline: float) -> str | None:
        """Submit until it is accepted; each try has a name of its own."""
        with self._open_client() as client:
            for number in itertools.count(1):
                name = f"{work.name}-{number}"
                said = self._submit_once(client, work, name)
                with self._lock:
                    self.submissions.append(said)
                if said.outcome is Outcome.ACCEPTED:
                    return said.task_id
                if said.outcome is Outcome.REFUSED or self._late(deadline):
                    self.complaints.append(f"{name} was not accepted: {said.detail}")
                    return None
                self._over.wait(_PAUSE_SECONDS)
        return None

    def _late(self, deadline: float) -> bool:
        return self._over.is_set() or time.monotonic() > deadline

    def _submit_once(self, client: httpx2.Client, work: Work, name: str) -> Submission:
        body = submission(work, self._trace_path) | {"name": name}
        try:
            answer = client.post("/api/submit", json=body, timeout=_ANSWER_SECONDS)
        except httpx2.HTTPError as error:
            return Submission(name, work, Outcome.UNANSWERED, detail=repr(error))
        if answer.status_code == 202:
            return Submission(name, work, Outcome.ACCEPTED, answer.json()["task_ids"][0])
        outcome = Outcome.UNANSWERED if answer.status_code >= 500 else Outcome.REFUSED
        return Submission(name, work, outcome, detail=f"{answer.status_code} {answer.text[:500]}")

    def kill(self, task_id: str, deadline: float) -> None:
        """Ask until there is an answer. A task that has ended cannot be killed (409), which is one too."""
        with self._open_client() as client:
            while not self._late(deadline):
                # It may take effect although nothing is heard of it.
                self.kill_asked.add(task_id)
                try:
                    status = client.post(f"/api/kill/{task_id}", timeout=_ANSWER_SECONDS).status_code
                except httpx2.HTTPError:
                    status = 503
                if status < 500:
                    if status not in (202, 409):
                        self.complaints.append(f"the kill of {task_id} was answered {status}")
                    return
                self._over.wait(_PAUSE_SECONDS)
        self.complaints.append(f"the kill of {task_id} was not answered in time")
