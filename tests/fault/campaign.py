"""One campaign: a stream of tasks runs on a cluster while everything breaks; then all is mended, and judged.

The same plan means the same tasks and the same faults at the same times; what the cluster makes of them
differs from run to run, as processes do.
"""

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx2

from fault.breaking import Breakable, Breaker, heal
from fault.campaign_record import CampaignRecord, SeenTask
from fault.clients import Clients
from fault.evidence import seen_tasks, tasks_named
from fault.schedule import Fault, FaultKind, make_schedule
from fault.workload import Stream, Work, make_works, parse_trace
from kohakuriver.models.transitions import FINAL

HEALING_SECONDS = 180.0
_QUIET_SECONDS = 60.0
"""How long what was used may take to be given back once everything is whole and every task has ended."""
_FINAL = frozenset(state.value for state in FINAL)


class Stage(Breakable, Protocol):
    """The cluster that a campaign runs on."""

    url: str
    shared: Path

    @property
    def nodes(self) -> Mapping[str, Any]: ...

    @property
    def token(self) -> str: ...

    @property
    def database(self) -> Path:
        """The host's SQLite file."""

    def local_temp(self, node: str) -> Path: ...

    def leftovers(self, node: str) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen; made from a seed by `make_plan`."""

    seed: int
    seconds: float
    cores: int
    works: tuple[Work, ...]
    schedule: tuple[Fault, ...]
    end_seconds: float
    """How long tasks may take to end after everything was mended."""


@dataclass(frozen=True, slots=True)
class CampaignOptions:
    """What a plan is made from. `kinds`: faults that may come."""

    seed: int
    seconds: float
    tasks: int
    kinds: tuple[FaultKind, ...] = tuple(FaultKind)


def plan_for(stage: Stage, request: CampaignOptions) -> Plan:
    """The plan for a cluster of nodes that are all of one size."""
    headers = {"Authorization": f"Bearer {stage.token}"}
    nodes = httpx2.get(f"{stage.url}/api/nodes", headers=headers, trust_env=False).json()
    return make_plan(request, tuple(sorted(stage.nodes)), min(node["total_cores"] for node in nodes))


def make_plan(request: CampaignOptions, nodes: tuple[str, ...], cores: int) -> Plan:
    """Tasks come for nine tenths of the time, faults until its end."""
    return Plan(
        seed=request.seed,
        seconds=request.seconds,
        cores=cores,
        works=make_works(request.seed, Stream(request.tasks, request.seconds * 0.9, nodes, cores)),
        schedule=make_schedule(request.seed, request.seconds, nodes, request.kinds),
        end_seconds=180 + 1.0 * request.tasks,
    )


class Campaign:
    """Runs one plan on a stage with `run`. `say` hears a line for whatever happens."""

    def __init__(self, stage: Stage, plan: Plan, say: Callable[[str], None]) -> None:
        self._stage = stage
        self._plan = plan
        self._say = say
        name = f"trace-{plan.seed}-{time.monotonic_ns()}"
        self._trace = stage.shared / "shared_data" / name
        self._clients = Clients(self._open_client, f"/shared/{name}")
        self._began = time.monotonic()

    def run(self) -> CampaignRecord:
        """Return when all was mended and all tasks have ended, or waiting for that was in vain."""
        stage, plan = self._stage, self._plan
        for node in stage.nodes:
            (stage.local_temp(node) / "node-name").write_text(f"{node}\n")
        self._trace.touch()
        self._trace.chmod(0o666)
        self._began = time.monotonic()
        with Breaker(stage, plan.schedule, self._tell) as breaker:
            patience = plan.seconds + HEALING_SECONDS
            submitting = threading.Thread(target=self._clients.run, args=(plan.works, patience))
            submitting.start()
            try:
                breaker.finish(patience)
                self._tell("all faults are over; mending")
                unhealed = self._heal()
                submitting.join(HEALING_SECONDS)
            finally:
                self._clients.give_up()
                submitting.join()
        unfinished = self._await_ends()
        self._tell(f"{len(unfinished)} tasks have not ended")
        leftovers = self._await_nothing_left()
        return self._record(breaker, unhealed, unfinished, leftovers)

    def _tell(self, line: str) -> None:
        self._say(f"[{time.monotonic() - self._began:6.1f} s] {line}")

    def _open_client(self) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self._stage.token}"}
        return httpx2.Client(base_url=self._stage.url, headers=headers, timeout=20, trust_env=False)

    def _get(self, path: str, **params: str | int) -> Any:
        with self._open_client() as client:
            answer = client.get(path, params=params)
            answer.raise_for_status()
            return answer.json()

    def _heal(self) -> list[str]:
        """Mend everything until the host is ready and every node is online."""
        deadline = time.monotonic() + HEALING_SECONDS
        complaints: list[str] = ["nothing was tried"]
        while time.monotonic() < deadline:
            complaints = heal(self._stage, self._stage.nodes)
            if not complaints and not (complaints := self._unwell()):
                return []
            time.sleep(0.5)
        return complaints

    def _unwell(self) -> list[str]:
        """Say what is not as it should be on a cluster where nothing is broken."""
        try:
            nodes = {node["hostname"]: node for node in self._get("/api/nodes")}
        except httpx2.HTTPError as error:
            return [f"the host does not answer after everything was mended: {error!r}"]
        return [
            f"node {name} is {nodes[name]['status']}: {nodes[name]['faults']}"
            for name in self._stage.nodes
            if nodes[name]["status"] != "online" or nodes[name]["faults"]
        ]

    def _names(self) -> set[str]:
        return {said.name for said in self._clients.submissions}

    def _await_ends(self) -> list[str]:
        deadline = time.monotonic() + self._plan.end_seconds
        open_tasks = ["?"]
        while open_tasks and time.monotonic() < deadline:
            with contextlib.suppress(httpx2.HTTPError), self._open_client() as client:
                tasks = tasks_named(client, self._names())
                open_tasks = [task["task_id"] for task in tasks if task["status"] not in _FINAL]
            time.sleep(0.5)
        return open_tasks

    def _await_nothing_left(self) -> dict[str, list[str]]:
        deadline = time.monotonic() + _QUIET_SECONDS
        left: dict[str, list[str]] = {}
        while True:
            left = {node: rest for node in self._stage.nodes if (rest := self._left_on(node))}
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.5)

    def _left_on(self, node: str) -> list[str]:
        """A node that is still giving things back may change while it is looked at."""
        try:
            return self._stage.leftovers(node)
        except subprocess.SubprocessError as error:
            return [f"something that cannot be looked at: {error}"]

    def _record(
        self, breaker: Breaker, unhealed: list[str], unfinished: list[str], leftovers: dict[str, list[str]]
    ) -> CampaignRecord:
        plan, clients = self._plan, self._clients
        trace, odd = parse_trace(self._trace.read_text(errors="replace"))
        busy: dict[str, int] = {}
        tasks: tuple[SeenTask, ...] = ()
        try:
            busy = {node["hostname"]: node["cores_used"] for node in self._get("/api/nodes")}
            with self._open_client() as client:
                tasks = tuple(seen_tasks(client, self._stage.database, self._names()))
        except httpx2.HTTPError as error:
            unhealed = [*unhealed, f"the host did not list its tasks: {error!r}"]
        return CampaignRecord(
            seed=plan.seed,
            seconds=plan.seconds,
            cores=plan.cores,
            schedule=plan.schedule,
            submissions=tuple(clients.submissions),
            tasks=tasks,
            trace=tuple(trace),
            odd_trace=tuple(odd),
            kill_asked=frozenset(clients.kill_asked),
            unfinished=tuple(unfinished),
            leftovers=leftovers,
            busy_cores={name: cores for name, cores in busy.items() if name in self._stage.nodes},
            complaints=(*breaker.complaints, *clients.complaints),
            unhealed=tuple(unhealed),
        )
