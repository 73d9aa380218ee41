"""A host that is stopped in order and started again: what waits on it goes on, as after a kill."""

import http.client
import os
import subprocess
from urllib.parse import urlsplit

import pytest

from support.clients.pty_session import pty_session
from support.cluster.cluster import BIN, Cluster, wait_for

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(300),
]
SCRIPT = "echo before; until test -e /shared/go-on; do sleep 0.1; done; echo after; exit 3"


def waiting(cluster: Cluster, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [str(BIN / "kohakuriver"), *arguments],
        env={**os.environ, "HOME": str(cluster.host_home), **cluster.cli_environment()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def requests_in_hand(cluster: Cluster) -> int:
    """The one that asks does not count."""
    figures = cluster.client.get("/metrics").text.splitlines()
    shown = next(line for line in figures if line.startswith("kohakuriver_open_requests "))
    return int(float(shown.split()[1])) - 1


def test_everything_that_waits_goes_on_when_the_host_is_stopped_and_started(lone_host: Cluster) -> None:
    lone_host.add_runner("kr-alone")
    task_id = lone_host.submit("sh", "-c", SCRIPT)
    lone_host.await_state(task_id, "running")
    waits = {
        "run": (waiting(lone_host, "run", "-c", "0", "--", "sh", "-c", SCRIPT), 3, b"before\nafter\n"),
        "submit": (waiting(lone_host, "task", "submit", "-w", "-c", "0", "--", "sh", "-c", SCRIPT), 3, None),
        "wait": (waiting(lone_host, "task", "wait", task_id), 3, b""),
        "watch": (waiting(lone_host, "task", "watch", "-o", "name", task_id), 0, None),
        "logs": (waiting(lone_host, "task", "logs", "-f", task_id), 0, b"before\nafter\n"),
    }
    try:
        # `run` holds three, the others one each.
        wait_for(lambda: requests_in_hand(lone_host) >= 7, "all of them to wait")
        held = http.client.HTTPConnection(urlsplit(lone_host.url).netloc, timeout=60)
        # Sent before it is looked for: those above may ask one more for a moment.
        held.request(
            "GET",
            f"/api/status/{task_id}?wait_seconds=60",
            headers={"Authorization": f"Bearer {lone_host.token}"},
        )
        wait_for(lambda: requests_in_hand(lone_host) >= 8, "one more to wait")
        assert lone_host.host is not None
        assert lone_host.host.end() == 0
        answer = held.getresponse()
        assert (answer.status, answer.headers["retry-after"]) == (503, "2")
        lone_host.start_host()
        (lone_host.shared / "shared_data" / "go-on").touch()
        for name, (process, status, output) in waits.items():
            out, err = process.communicate(timeout=90)
            assert (name, process.returncode) == (name, status), err
            assert output in (None, out), name
            assert b"Error" not in err, name
    finally:
        for process, _, _ in waits.values():
            process.kill()
            process.communicate()


def test_a_shell_and_a_command_know_that_the_host_was_stopped_under_them(lone_host: Cluster) -> None:
    """Over open WebSockets: `connect` comes back to its shell, `exec` does not end as if all went well."""
    lone_host.add_runner("kr-alone")
    task_id = lone_host.submit("sleep", "600")
    lone_host.await_state(task_id, "running")
    environment = {**os.environ, "HOME": str(lone_host.host_home), **lone_host.cli_environment()}
    command = waiting(lone_host, "exec", task_id, "--", "sh", "-c", "echo begun; exec sleep 600")
    try:
        assert command.stdout is not None
        assert command.stdout.readline() == b"begun\n"
        with pty_session([str(BIN / "kohakuriver"), "connect", task_id], environment) as terminal:
            terminal.send("WORD=ke''pt; echo he''re\r")
            terminal.wait_for("here")
            assert lone_host.host is not None
            assert lone_host.host.end() == 0
            out, err = command.communicate(timeout=60)
            assert (command.returncode, out) == (5, b""), err
            terminal.wait_for("connection lost, trying again")
            lone_host.start_host()
            lone_host.await_node("kr-alone")
            terminal.send("echo $WORD\r")
            terminal.wait_for("kept", 60)
            terminal.send("exit 7\r")
            assert terminal.wait(60) == 7
    finally:
        command.kill()
        command.communicate()
