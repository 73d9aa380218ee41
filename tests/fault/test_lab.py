"""Each fault of the lab does what it says and no more; of a lab nothing stays, whatever happened to it."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import AF_INET, SOCK_DGRAM, socket

import pytest

from support.cluster.cluster import wait_for
from support.lab.clock import MovableClock
from support.lab.disk import mounts_from
from support.lab.lab import Lab
from support.lab.network import interface_of
from support.lab.registry import all_labs, processes_of
from support.machine.processes import cgroups_named, is_running

pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
_TESTS = ROOT / "tests"

_LISTENER = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
    line.bind(("0.0.0.0", 0))
    print(line.getsockname()[1], flush=True)
    print(line.recv(100).decode(), flush=True)
"""
_LAB_THAT_WAITS = """
import sys
from pathlib import Path
from support.lab.lab import Lab
lab = Lab(Path(sys.argv[1]))
lab.start(1)
lab.await_state(lab.submit("sleep", "600"), "running")
print("ready", flush=True)
sys.stdin.read()
"""
_CLOCKS = """
import datetime, sys, time
for _ in sys.stdin:
    now = datetime.datetime.now(datetime.timezone.utc).timestamp()
    print(time.time(), now, time.time_ns() / 1e9, time.monotonic(), flush=True)
"""


class NodeListener:
    """Hears one datagram in a node's network namespace."""

    def __init__(self, lab: Lab, node: str) -> None:
        argv = lab.nodes[node].namespaces.argv(sys.executable, "-c", _LISTENER)
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self._address = (lab.nodes[node].address, int(self._read()))

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def send(self, word: str) -> None:
        with socket(AF_INET, SOCK_DGRAM) as line:
            line.sendto(word.encode(), self._address)

    def heard(self) -> str:
        with self._process:
            return self._read()


class HostListener:
    """Hears datagrams at the host's address; they are sent from a node."""

    def __init__(self, lab: Lab, node: str) -> None:
        self._line = socket(AF_INET, SOCK_DGRAM)
        self._line.bind((lab.address, 0))
        self._line.settimeout(30)
        self._node = lab.nodes[node]

    def send(self, *words: str) -> None:
        """A datagram for each; the kernel refuses those that it drops on their way out."""
        address, port = self._line.getsockname()
        sends = "; ".join(f"echo -n {word} > /dev/udp/{address}/{port}" for word in words)
        self._node.namespaces.run("bash", "-c", sends, check=False)

    def heard(self) -> str:
        return self._line.recv(100).decode()

    def close(self) -> None:
        self._line.close()


@pytest.mark.parametrize("direction", ["to_host", "from_host", "both"])
def test_a_cut_stops_that_direction_and_no_other_until_it_is_mended(lab: Lab, direction: str) -> None:
    at_node, at_host = NodeListener(lab, "n1"), HostListener(lab, "n1")
    lab.cut("n1", direction)
    at_node.send("while-cut")
    at_host.send("while-cut")
    if direction == "from_host":
        assert at_host.heard() == "while-cut"
    if direction == "to_host":
        assert at_node.heard() == "while-cut"
    lab.mend("n1")
    at_host.send("mended")
    at_node.send("mended")
    if direction != "from_host":
        assert at_host.heard() == "mended"
    if direction != "to_host":
        assert at_node.heard() == "mended"
    at_host.close()


def test_a_cut_concerns_its_own_node_alone(lab: Lab) -> None:
    lab.cut("n1")
    lab.await_node("n1", "offline")
    assert lab.finished(lab.submit("true", targets=["n2"]))["status"] == "completed"
    lab.mend("n1")
    assert lab.finished(lab.submit("true", targets=["n1"]))["status"] == "completed"


def test_a_lossy_link_loses_some_and_not_all(lab: Lab) -> None:
    at_host = HostListener(lab, "n2")
    lab.slow("n2", loss_percent=50)
    at_host.send(*map(str, range(100)))
    lab.mend("n2")
    at_host.send("last")
    heard = []
    while "last" not in heard:
        heard.append(at_host.heard())
    at_host.close()
    assert 0 < len(heard) - 1 < 100


def test_messages_are_delayed_and_doubled_and_everything_still_works(lab: Lab) -> None:
    counts = lab.nodes["n3"].counts
    before = counts()
    lab.slow("n3", delay_ms=20, duplicate_percent=100)
    task_id = lab.submit("echo", "once", targets=["n3"])
    assert lab.finished(task_id)["status"] == "completed"
    assert lab.output(task_id) == b"once\n"
    assert counts()["delayed"] > before.get("delayed", 0)
    assert counts()["duplicated"] > before.get("duplicated", 0)
    lab.mend("n3")
    after = counts()
    wait_for(lambda: counts()["passed"] > after["passed"], "a message after the mending")
    assert counts()["duplicated"] <= after["duplicated"] + 1  # one may have been on its way


def test_a_wall_clock_moves_at_run_time_and_the_monotonic_one_stays_true(tmp_path: Path) -> None:
    clock = MovableClock(tmp_path / "clock")
    environment = {**os.environ, **clock.environment}
    with subprocess.Popen(
        [sys.executable, "-c", _CLOCKS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        for seconds in (0, 86_400, -86_400, 0.5):
            clock.shift(seconds)
            before = (time.time(), time.monotonic())
            program.stdin.write("\n")
            program.stdin.flush()
            told = [float(word) for word in program.stdout.readline().split()]
            after = (time.time(), time.monotonic())
            assert all(before[0] + seconds - 0.001 <= wall <= after[0] + seconds + 0.001 for wall in told[:3])
            assert before[1] <= told[3] <= after[1]


def test_the_clock_of_the_host_moves_and_its_nodes_stay_online(lab: Lab) -> None:
    lab.shift_clock("host", 7200)
    record = lab.finished(lab.submit("true"))
    assert datetime.fromisoformat(record["submitted_at"]) > datetime.now(UTC) + timedelta(hours=1)
    assert {node["status"] for node in lab.api("GET", "/api/nodes")} == {"online"}
    lab.shift_clock("host", 0)
    record = lab.finished(lab.submit("true"))
    assert datetime.fromisoformat(record["submitted_at"]) < datetime.now(UTC) + timedelta(minutes=1)


def test_a_full_disk_of_a_node_is_full_there_and_shown_until_it_is_freed(lab: Lab) -> None:
    def faults() -> list[str]:
        listed = lab.api("GET", "/api/nodes")
        return list(next(node["faults"] for node in listed if node["hostname"] == "n1"))

    lab.fill_disk("n1")
    with pytest.raises(OSError, match="No space left") as refused:
        (lab.nodes["n1"].state_dir / "probe").write_bytes(b"1")
    assert refused.value.errno == errno.ENOSPC
    assert wait_for(lambda: [line for line in faults() if "full" in line], "the node to say so")
    lab.free_disk("n1")
    wait_for(lambda: not faults(), "the node to be well again")
    (lab.nodes["n1"].state_dir / "probe").unlink()


def test_a_full_disk_of_the_host_takes_nothing_in_until_it_is_freed(lab: Lab) -> None:
    lab.fill_disk("host")
    body = {"task_type": "command", "command": "true", "arguments": []}
    assert lab.client.post("/api/submit", json=body).status_code == 503
    assert lab.client.get("/readyz").status_code == 503
    lab.free_disk("host")
    wait_for(lambda: lab.client.get("/readyz").status_code == 200, "the host to be ready")
    assert lab.finished(lab.submit("true"))["status"] == "completed"


@pytest.mark.parametrize("way", ["kill_dockerd", "stop_dockerd"])
def test_containers_outlive_their_daemon(lab: Lab, way: str) -> None:
    task_id = lab.submit("sleep", "600", targets=["n3"])
    lab.await_state(task_id, "running")

    def pid() -> int:
        listed = lab.nodes["n3"].docker.run("inspect", "-f", "{{.State.Pid}}", f"kohakuriver-task-{task_id}")
        return int(listed)

    before = pid()
    getattr(lab, way)("n3")
    assert not lab.nodes["n3"].docker.is_running()
    assert is_running(before)
    lab.start_dockerd("n3")
    assert pid() == before
    lab.client.post(f"/api/kill/{task_id}")
    assert lab.finished(task_id)["status"] == "killed"


def test_leftovers_names_what_should_not_be_there(lab: Lab) -> None:
    wait_for(lambda: not lab.leftovers("n1"), "the node to have nothing left")
    docker, folder = lab.nodes["n1"].docker, lab.nodes["n1"].state_dir / "net" / "123"
    lab.finished(lab.submit("true", targets=["n1"]))
    (image,) = docker.run("images", "--quiet", "--filter", "reference=kohakuriver/*:base").split()
    docker.run("network", "create", "left-network")
    docker.run("run", "--detach", "--name", "left-container", image, "sleep", "600")
    folder.mkdir(parents=True)
    found = lab.leftovers("n1")
    for name in ("container left-container", "network left-network", f"folder {folder}", "ends of pairs"):
        assert [line for line in found if name in line], found
    docker.run("rm", "--force", "left-container")
    docker.run("network", "rm", "left-network")
    folder.rmdir()
    wait_for(lambda: not lab.leftovers("n1"), "the node to have nothing left")


def test_nothing_stays_of_a_lab_whose_process_was_killed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _LAB_THAT_WAITS, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(_TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (record,) = (lab for lab in all_labs() if lab.root == tmp_path)
        namespaces = _network_namespaces(processes_of(record)) - _network_namespaces([os.getpid()])
        assert len(mounts_from(record.disk_source)) == 2
        assert cgroups_named(f"{record.cgroup_prefix}*")
        assert len(namespaces) >= 2
        process.send_signal(signal.SIGKILL)
    down = [sys.executable, str(ROOT / "tools" / "lab.py"), "down", "--abandoned"]
    subprocess.run(down, check=True, capture_output=True)
    assert record not in all_labs()
    assert not processes_of(record)
    assert not cgroups_named(f"{record.cgroup_prefix}*")
    assert not mounts_from(record.disk_source)
    assert not record.scratch.exists()
    assert not Path("/sys/class/net", interface_of(record.lab_id)).exists()
    everybody = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    assert not namespaces & _network_namespaces(everybody)


def _network_namespaces(pids: list[int]) -> set[str]:
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended, or is none that we may look into
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
    return found


def test_a_stranger_that_knows_of_the_lab_outlives_it(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        argv = [sys.executable, "-c", "import sys; sys.stdin.read()", lab.record.lab_id, str(tmp_path)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE) as stranger:
            lab.stop()
            assert is_running(stranger.pid)
