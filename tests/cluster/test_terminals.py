"""Shells and commands on a real cluster: every hop a process of its own."""

import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from kohakuriver.wire.terminal_frames import Start, control_frame
from support.clients.pty_session import pty_session
from support.cluster.cluster import BIN, Cluster, running_cluster, wait_for
from support.cluster.terminal_client import echo, terminal_of
from support.cluster.vps import vps_on

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(300),
]
ROUNDS = 200


@pytest.fixture
def running_task(cluster: Cluster) -> Iterator[str]:
    task_id = cluster.submit("sleep", "600")
    cluster.await_state(task_id, "running")
    yield task_id
    cluster.client.post(f"/api/kill/{task_id}")
    cluster.finished(task_id)


def test_commands_run_in_tasks_and_vps(cluster: Cluster, running_task: str) -> None:
    sent = os.urandom(1 << 20)
    with vps_on(cluster, "kr-n1") as vps:
        for workload in (running_task, vps):
            done = cluster.cli("exec", "-i", workload[-8:], "--", "cat", input=sent)
            assert (done.returncode, done.stdout, done.stderr) == (0, sent, b"")
            done = cluster.cli("exec", workload, "--", "sh", "-c", "echo no >&2; exit 3")
            assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"no\n")
            done = cluster.cli("exec", workload, "--", "no-such-program")
            assert (done.returncode, b"'no-such-program' was not found" in done.stderr) == (127, True)


def test_a_detached_command_lives_on_without_its_client(cluster: Cluster, running_task: str) -> None:
    with vps_on(cluster, "kr-n1") as vps:
        for workload in (running_task, vps):
            mark = f"/shared/detached-{workload}"
            # It speaks more than any pipe holds, so it would stand still if somebody were to read that.
            work = f"cat; head -c 1000000 /dev/zero; echo said >&2; echo $WORD > {mark}; exec sleep 7654"
            done = cluster.cli("exec", "-d", "-e", "WORD=alive", workload, "--", "sh", "-c", work)
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
            wait_for(partial(says_it_lives, cluster, workload, mark), "what it wrote")
            done = cluster.cli("exec", "-d", workload, "--", "no-such-program")
            assert (done.returncode, b"'no-such-program' was not found" in done.stderr) == (127, True)
            done = cluster.cli("exec", "-d", "-t", workload, "--", "true")
            assert done.returncode == 2
        alive = cluster.cli("exec", vps, "--", "sh", "-c", "grep -l '[7]654' /proc/[0-9]*/cmdline")
        assert alive.stdout.count(b"/cmdline") == 1


def test_a_shell_ends_with_its_workload_and_says_why(cluster: Cluster) -> None:
    with vps_on(cluster, "kr-n1") as vps:
        environment = {**os.environ, "HOME": str(cluster.host_home), **cluster.cli_environment()}
        with pty_session([str(BIN / "kohakuriver"), "connect", vps], environment) as terminal:
            terminal.send("echo I am he''re\r")
            terminal.wait_for("I am here")
            assert cluster.cli("vps", "stop", vps).returncode == 0
            assert terminal.wait(60) == 1
        assert "the workload has ended" in terminal.text
        refused = cluster.cli("exec", vps, "--", "true")
        assert (refused.returncode, b"stopped" in refused.stderr) == (1, True)


def test_an_echo_comes_back_over_the_whole_way(cluster: Cluster, running_task: str) -> None:
    with terminal_of(cluster, f"/ws/task/{running_task}/exec") as client:
        client.send(control_frame(Start(("cat",), rows=24, cols=80)))
        echo(client, b"w")
        taken = []
        for number in range(ROUNDS):
            begin = time.perf_counter()
            echo(client, bytes([97 + number % 26]))
            taken.append(1000 * (time.perf_counter() - begin))
        print(f"\necho round trip: median {statistics.median(taken):.2f} ms, most {max(taken):.2f} ms")


def test_a_runner_that_is_stopped_leaves_no_shell_behind(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        runner = cluster.add_runner("kr-shells")
        task_id = cluster.submit("sleep", "600")
        cluster.await_state(task_id, "running")
        with terminal_of(cluster, f"/ws/task/{task_id}/terminal") as client:
            client.send(b"\0sleep 4321\n")
            wait_for(lambda: "sleep 4321" in processes_of(task_id), "the shell's command to run")
            assert runner.end() == 0
            wait_for(lambda: "sleep 4321" not in processes_of(task_id), "the shell to be hung up")


def says_it_lives(cluster: Cluster, workload: str, mark: str) -> bool:
    return cluster.cli("exec", workload, "--", "cat", mark).stdout == b"alive\n"


def processes_of(task_id: str) -> str:
    shown = subprocess.run(["docker", "top", f"kohakuriver-task-{task_id}"], capture_output=True, check=True)
    return shown.stdout.decode()
