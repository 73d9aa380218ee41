"""Commands that wait go on through a host, or a proxy before it, that is unreachable for a while."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from operator import methodcaller
from pathlib import Path

import pytest

from kohakuriver.client.connection.host_trust import HostAccess
from kohakuriver.client.errors import HostUnreachable
from kohakuriver.client.streams.terminal import task_terminal
from support.clients.command_line import CommandLine
from support.clients.failing_proxy import FailingProxy, failing_proxy
from support.clients.stub_host import Answer, Request, StubHost, task_record
from support.cluster.cluster import wait_for

TASK, OTHER = "310000000000004242", "310000000000004243"
OUTPUT = b"before\nafter\n"
Outage = Callable[[FailingProxy], None]


class SlowTask:
    """Runs until it is let go on; its output is one line before and one after."""

    def __init__(self, host: StubHost) -> None:
        self.goes_on = threading.Event()
        host.answer("POST", "/api/submit", {"message": "", "task_ids": [TASK]}, 202)
        for task_id in (TASK, OTHER):
            host.script("GET", f"/api/status/{task_id}", self._status)
        host.script("GET", "/api/nodes", self._nodes)
        host.answer("POST", "/api/nodes/n1/drain", {"message": "n1 is being drained"})
        for stream in ("stdout", "stderr"):
            host.script("GET", f"/api/tasks/{TASK}/{stream}", self._output)

    def _status(self, request: Request) -> Answer:
        self.goes_on.wait(min(1, int(request.query.get("wait_seconds", 0))))
        over = self.goes_on.is_set()
        state = {"status": "failed", "exit_code": 3} if over else {"status": "running", "exit_code": None}
        return Answer(task_record(request.path.rsplit("/", 1)[1], **state))

    def _nodes(self, _request: Request) -> Answer:
        tasks = 0 if self.goes_on.is_set() else 1
        return Answer([{"hostname": "n1", "status": "online", "draining": True, "tasks": tasks}])

    def _output(self, request: Request) -> Answer:
        begin = int(request.headers.get("range", "bytes=0-")[len("bytes=") : -1])
        return Answer(self._pieces(begin), 206 if begin else 200, {"Kohakuriver-Offset": str(begin)})

    def _pieces(self, begin: int) -> Iterator[bytes]:
        if begin < len(b"before\n"):
            yield b"before\n"[begin:]
        self.goes_on.wait(60)
        yield OUTPUT[max(begin, len(b"before\n")) :]


@pytest.fixture
def task(host: StubHost) -> Iterator[SlowTask]:
    task = SlowTask(host)
    yield task
    task.goes_on.set()


@pytest.fixture
def proxy(host: StubHost) -> Iterator[FailingProxy]:
    with failing_proxy(host.port) as running:
        yield running


OUTAGES: dict[str, Outage] = {
    **{str(status): methodcaller("fail_with", status) for status in (502, 503, 504, 520)},
    "cut": FailingProxy.cut_answers,
}
WAITS = {
    "run": (("run", "true"), 3, b"before\n", b"after\n"),
    "submit": (("task", "submit", "-w", "true"), 3, f"{TASK}\n".encode(), b""),
    "wait": (("task", "wait", OTHER), 3, b"", b""),
    "watch": (("task", "watch", "-o", "name", TASK), 0, f"{TASK}\n".encode(), f"{TASK}\n".encode()),
    "logs": (("task", "logs", "-f", TASK), 0, b"before\n", b"after\n"),
    "drain": (("node", "drain", "--wait", "n1"), 0, b"n1 is being drained\n", b""),
}
"""Its words, its exit status, and its standard output before and after the outage."""


def through(proxy: FailingProxy, host: StubHost, home: Path, *, with_token: bool) -> CommandLine:
    """With a token each connection is proven first, which is one more answer that can fail."""
    proof = {"KOHAKURIVER_TOKEN": "token-1", "KOHAKURIVER_HOST_FINGERPRINT": host.identity.fingerprint}
    return CommandLine(home, proxy.url, variables=proof if with_token else {})


@pytest.mark.parametrize("with_token", [True, False], ids=["proven", "open"])
@pytest.mark.parametrize("outage", OUTAGES)
def test_what_waits_goes_on_when_a_proxy_fails_for_a_while(
    host: StubHost, proxy: FailingProxy, task: SlowTask, tmp_path: Path, outage: str, with_token: bool
) -> None:
    command = through(proxy, host, tmp_path, with_token=with_token)
    processes = {
        name: subprocess.Popen(
            command.argv(*arguments),
            env=command.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name, (arguments, *_) in WAITS.items()
    }
    try:
        # A host that was never reached is not waited for, so each has had an answer first.
        for name, (_, _, first, _) in WAITS.items():
            said = processes[name].stdout
            assert said is not None
            assert not first or said.readline() == first
        wait_for(
            lambda: any("wait_seconds" in call.query for call in host.calls("GET", f"/api/status/{OTHER}")),
            "`task wait` to hold its answer",
        )
        OUTAGES[outage](proxy)
        wait_for(lambda: proxy.failures >= 2 * len(WAITS), "every wait to have met the outage")
        proxy.recover()
        task.goes_on.set()
        for name, (_, status, _, output) in WAITS.items():
            out, err = processes[name].communicate(timeout=60)
            assert (name, processes[name].returncode, out) == (name, status, output), err
            assert b"shown-by-a-proxy" not in err
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()


@pytest.mark.parametrize("with_token", [True, False], ids=["proven", "open"])
@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_proxy_without_a_host_behind_it_is_an_unreachable_host(
    host: StubHost, proxy: FailingProxy, tmp_path: Path, status: int, with_token: bool
) -> None:
    proxy.fail_with(status)
    done = through(proxy, host, tmp_path, with_token=with_token).run("node", "list")
    assert (done.returncode, done.stdout) == (5, b"")
    assert f"HTTP status {status}".encode() in done.stderr
    assert b"shown-by-a-proxy" not in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_list_that_is_watched_goes_on_after_an_outage(
    host: StubHost, proxy: FailingProxy, task: SlowTask, tmp_path: Path
) -> None:
    command = through(proxy, host, tmp_path, with_token=False)
    with subprocess.Popen(
        command.argv("node", "list", "--watch", "0.1", "-o", "name"),
        env=command.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as watch:
        assert watch.stdout is not None
        assert watch.stdout.readline() == b"n1\n"
        proxy.fail_with(502)
        wait_for(lambda: proxy.failures >= 2, "the outage to be met")
        seen = len(host.calls("GET", "/api/nodes"))
        proxy.recover()
        wait_for(lambda: len(host.calls("GET", "/api/nodes")) > seen, "another look")
        assert watch.stdout.readline() == b"n1\n"
        watch.kill()


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_shell_behind_a_failing_proxy_is_connected_again(proxy: FailingProxy, status: int) -> None:
    """`connect` makes a new connection after these errors, and after no others."""
    proxy.fail_with(status)
    with (
        pytest.raises(HostUnreachable, match=str(status)),
        task_terminal(HostAccess(proxy.url), TASK, {"session": "1"}),
    ):
        pass
