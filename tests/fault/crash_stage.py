"""A cluster on which a daemon is made to die at a crash point under tasks, and what is left to be judged."""

import contextlib
import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx2

from fault.campaign_record import CampaignRecord
from fault.clients import Clients
from fault.crash_scenarios import Scenario, Trigger
from fault.evidence import opened_store, seen_tasks, tasks_named
from fault.workload import START, Work, WorkKind, parse_trace
from kohakuriver.crash_points import VARIABLE, CrashPoint
from kohakuriver.models.transitions import FINAL
from kohakuriver.runner.agent.book import Book
from kohakuriver.runner.agent.journal import Journal
from kohakuriver.runner.local_temp import data_folder
from support.cluster import Cluster, Daemon, remove_containers_of, wait_for, write_busybox_tarball

END_SECONDS = 120.0
_MAKING = (CrashPoint.RUNNER_SANDBOX_CREATED, CrashPoint.RUNNER_SANDBOX_STARTED)
_QUIET_SECONDS = 30.0
_COUNTER_LINES = 6
_FINAL = frozenset(state.value for state in FINAL)


class CrashStage:
    """`run` any number of scenarios on a cluster that stands, one after the other."""

    def __init__(self, cluster: Cluster, node: str) -> None:
        self._cluster = cluster
        self._node = node
        self._numbers = itertools.count(1)
        self._images: list[str] = []
        # Marks of the tasks say where they ran.
        (data_folder(cluster.root / f"{node}-temp") / "node-name").write_text(f"{node}\n")

    def run(self, scenario: Scenario) -> CampaignRecord:
        """Die, live again, wait until all is over; fails if the daemon did not die at the point."""
        number = next(self._numbers)
        works = _works(f"crash-{os.getpid()}-{number}", self._environment(scenario, number))
        folder = self._cluster.shared / "shared_data"
        trace = folder / f"trace-{number}"
        trace.touch()
        trace.chmod(0o666)
        clients = Clients(self._open_client, f"/shared/{trace.name}")
        daemon = self._daemon(scenario)
        daemon.end(signal.SIGKILL)
        if scenario.point in _MAKING:
            # Sandboxes that stand idle would serve instead of one that is made.
            remove_containers_of(self._node)
        start_armed(daemon, scenario)
        over = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            try:
                submitting = pool.submit(clients.run, works, END_SECONDS)
                killing = pool.submit(self._kill_what_started, clients, trace, over)
                if scenario.trigger is Trigger.STOP:
                    wait_for(lambda: _started(trace), "a task to start")
                    assert daemon.process is not None
                    daemon.process.send_signal(signal.SIGTERM)
                see_dead(daemon, scenario)
                for other in self._others(daemon) if scenario.both else ():
                    other.end(signal.SIGKILL)
                    other.start()
                start_again(daemon, scenario)
                submitting.result()
                unfinished = self._await_ends(clients)
            finally:
                clients.give_up()
                over.set()
            killing.result()
        return self._record(clients, trace, unfinished)

    def clear_images(self) -> None:
        """Remove the images that were loaded for scenarios."""
        for name in self._images:
            listed = subprocess.run(
                ["docker", "images", "-q", f"kohakuriver/{name}"], capture_output=True, check=True
            )
            ids = set(listed.stdout.decode().split())
            subprocess.run(["docker", "rmi", "-f", *ids], capture_output=True, check=False)

    def _daemon(self, scenario: Scenario) -> Daemon:
        daemon = self._cluster.host if scenario.kills_host else self._cluster.runners[self._node]
        assert daemon is not None
        return daemon

    def _others(self, daemon: Daemon) -> list[Daemon]:
        every = [self._cluster.host, *self._cluster.runners.values()]
        return [each for each in every if each is not None and each is not daemon]

    def _environment(self, scenario: Scenario, number: int) -> str | None:
        if scenario.trigger is not Trigger.NEW_IMAGE:
            return None
        self._images.append(f"crash-{os.getpid()}-{number}")
        write_busybox_tarball(self._cluster.containers, self._images[-1])
        return self._images[-1]

    def _open_client(self) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self._cluster.token}"}
        return httpx2.Client(base_url=self._cluster.url, headers=headers, timeout=20, trust_env=False)

    def _kill_what_started(self, clients: Clients, trace: Path, over: threading.Event) -> None:
        """Kill the tasks that are there for that, once their commands have begun; heard of or not."""
        with self._open_client() as client:
            while not over.wait(0.05):
                said = tuple(clients.submissions)
                names = {each.name for each in said if each.work.kind is WorkKind.KILLED}
                begun = _started(trace) - clients.kill_asked
                with contextlib.suppress(httpx2.HTTPError):
                    for task_id in begun & {task["task_id"] for task in tasks_named(client, names)}:
                        clients.kill(task_id, time.monotonic() + END_SECONDS)

    def _await_ends(self, clients: Clients) -> list[str]:
        """Return the ids of tasks that have not ended when the time is over."""
        names = {said.name for said in clients.submissions}
        deadline = time.monotonic() + END_SECONDS
        unfinished = ["?"]
        with self._open_client() as client:
            while unfinished and time.monotonic() < deadline:
                with contextlib.suppress(httpx2.HTTPError):
                    tasks = tasks_named(client, names)
                    unfinished = [task["task_id"] for task in tasks if task["status"] not in _FINAL]
                time.sleep(0.02)
        return unfinished

    def _record(self, clients: Clients, trace: Path, unfinished: list[str]) -> CampaignRecord:
        names = {said.name for said in clients.submissions}
        with self._open_client() as client:
            leftovers = self._await_nothing_left()
            nodes = {node["hostname"]: node for node in self._cluster.listed_nodes()}
            marks, odd = parse_trace(trace.read_text(errors="replace"))
            return CampaignRecord(
                seed=0,
                seconds=0,
                cores=nodes[self._node]["total_cores"],
                schedule=(),
                submissions=tuple(clients.submissions),
                tasks=tuple(seen_tasks(client, self._database, names)),
                trace=tuple(marks),
                odd_trace=tuple(odd),
                kill_asked=frozenset(clients.kill_asked),
                unfinished=tuple(unfinished),
                leftovers=leftovers,
                busy_cores={name: node["cores_used"] for name, node in nodes.items()},
                complaints=tuple(clients.complaints),
            )

    @property
    def _database(self) -> Path:
        return self._cluster.root / "state" / "kohakuriver.db"

    def _await_nothing_left(self) -> dict[str, list[str]]:
        deadline = time.monotonic() + _QUIET_SECONDS
        while True:
            places = {self._node: list(self._left_on_node()), "the host": list(self._left_on_host())}
            left = {place: rest for place, rest in places.items() if rest}
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.05)

    def _left_on_node(self) -> Iterator[str]:
        state = self._cluster.root / f"{self._node}-home" / ".kohakuriver" / "runner" / self._node
        sandboxes = set()
        for container_id, name, kind, task in _containers(self._node):
            if task or not kind:
                yield f"container {name}"
            elif kind == "running":
                sandboxes.add(container_id)
            else:
                yield f"sandbox {name}, which is {kind}"
        for path in (*state.glob("net/*"), *state.glob(".*.new")):
            yield f"file {path.name}"
        for path in state.glob("sandboxes/*.json"):
            if path.stem not in sandboxes:
                yield f"record {path.name} of a sandbox that is gone"
        book = Book()
        for record in Journal(state / "journal", list).load():
            book.apply(record)
        for attempt in book:
            named = f"attempt {attempt.number} of task {attempt.task_id}"
            yield f"{named}, {attempt.status.value}, in the journal"

    def _left_on_host(self) -> Iterator[str]:
        with opened_store(self._database) as store:
            for row in store("SELECT id, kind, task_id FROM orders"):
                yield f"order {row[0]} to {row[1]} task {row[2]}"
            for (sentence,) in store("PRAGMA integrity_check"):
                if sentence != "ok":
                    yield f"a damaged database: {sentence}"


def start_armed(daemon: Daemon, scenario: Scenario) -> None:
    daemon.environment = {VARIABLE: scenario.deaths[0]}
    daemon.start()


def see_dead(daemon: Daemon, scenario: Scenario) -> None:
    """Wait until an armed daemon died by SIGKILL, which nothing but its point sends."""
    assert daemon.process is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        daemon.process.wait(END_SECONDS)
    code = daemon.process.returncode
    if code != -signal.SIGKILL:
        armed, daemon.environment = daemon.environment, {}
        daemon.end(signal.SIGKILL)
        daemon.start()  # for the scenarios that come after
        raise AssertionError(f"{scenario}: {armed} was not reached; exit status {code}\n{daemon.tail()}")


def start_again(daemon: Daemon, scenario: Scenario) -> None:
    """Start a daemon that died, armed for its further deaths and at last unarmed."""
    for armed in scenario.deaths[1:]:
        daemon.environment = {VARIABLE: armed}
        daemon.start()
        see_dead(daemon, scenario)
    daemon.environment = {}
    daemon.start()


def _works(stem: str, environment: str | None) -> tuple[Work, ...]:
    works = (
        Work(f"{stem}-killed", WorkKind.KILLED, lines=600, cores=0),
        Work(f"{stem}-counter", WorkKind.COUNTER, lines=_COUNTER_LINES),
        Work(f"{stem}-failing", WorkKind.FAILING, lines=2, exit_code=3),
    )
    return tuple(replace(work, environment=environment) for work in works)


def _started(trace: Path) -> set[str]:
    """Ids of the tasks whose commands have begun."""
    return {line.task_id for line in parse_trace(trace.read_text(errors="replace"))[0] if line.event == START}


def _containers(node: str) -> Iterator[list[str]]:
    """Id, name, state and task id of every container of the node."""
    form = '{{.ID}}|{{.Names}}|{{.State}}|{{.Label "kohakuriver.task_id"}}'
    listed = subprocess.run(
        ["docker", "ps", "-a", "--no-trunc", "--filter", f"label=kohakuriver.node={node}", "--format", form],
        capture_output=True,
        check=True,
    )
    return (line.split("|") for line in listed.stdout.decode().splitlines())
