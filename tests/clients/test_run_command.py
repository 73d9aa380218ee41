"""`run`: the task's streams, its exit status, what it waits for, and Ctrl-C in a real terminal."""

import signal
import subprocess
import threading
from collections.abc import Iterator
from itertools import chain, repeat

import pytest

from support.clients.command_line import CommandLine
from support.clients.pty_session import pty_session
from support.clients.stub_host import Answer, Request, StubHost, serve_task, task_record

TASK = "310000000000004242"


class LiveTask:
    """A task on the stub host that runs until the test, or a kill, ends it."""

    def __init__(self, host: StubHost, state: str = "running", **fields: object) -> None:
        self.state = state
        self.fields = fields
        self.over = threading.Event()
        self.killed = threading.Event()
        host.answer("POST", "/api/submit", {"message": "", "task_ids": [TASK]}, 202)
        host.script("GET", f"/api/status/{TASK}", self._status)
        host.script("POST", f"/api/kill/{TASK}", self._kill)
        for stream in ("stdout", "stderr"):
            host.script("GET", f"/api/tasks/{TASK}/{stream}", self._output)

    def end(self, state: str, **fields: object) -> None:
        self.state, self.fields = state, fields
        self.over.set()

    def _status(self, request: Request) -> Answer:
        self.over.wait(min(1, int(request.query.get("wait_seconds", 0))))
        return Answer(task_record(TASK, **{"status": self.state, "exit_code": None, **self.fields}))

    def _kill(self, request: Request) -> Answer:
        self.killed.set()
        self.end("killed")
        return Answer({"message": "killed"}, 202)

    def _output(self, request: Request) -> Answer:
        return Answer(self._chunks(request.path.rsplit("/", 1)[1]))

    def _chunks(self, stream: str) -> Iterator[bytes]:
        yield f"first of {stream}\n".encode()
        self.over.wait(60)


@pytest.fixture
def live(host: StubHost) -> Iterator[LiveTask]:
    task = LiveTask(host)
    yield task
    task.over.set()


def test_both_streams_arrive_apart_and_the_exit_status_is_the_commands(
    command: CommandLine, host: StubHost
) -> None:
    record = task_record(TASK, status="failed", exit_code=3)
    out, err = bytes(range(256)) * 1000, b"err\n\xff"
    serve_task(host, record, stdout=[out[:7], out[7:]], stderr=[err])
    done = command.run("run", "-c", "1", "-m", "256M", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.returncode) == (out, err, 3)
    assert host.requests[0].json["arguments"] == ["-c", "echo out; echo err >&2; exit 3"]


@pytest.mark.parametrize(
    ("state", "exit_code", "expected", "told"),
    [
        ("completed", 0, 0, b""),
        ("failed", 137, 137, b""),
        ("killed", 137, 137, b"ended as killed: why\n"),
        ("killed_oom", 137, 137, b"ended as killed_oom: why\n"),
        ("failed", None, 1, b"ended as failed: why\n"),
        ("rejected", None, 1, b"ended as rejected: why\n"),
    ],
)
def test_an_end_gives_its_status_and_its_reason(
    command: CommandLine, host: StubHost, state: str, exit_code: int | None, expected: int, told: bytes
) -> None:
    serve_task(host, task_record(TASK, status=state, exit_code=exit_code, error_message="why"))
    done = command.run("run", "true")
    assert done.returncode == expected
    assert done.stdout == b""
    assert done.stderr.endswith(told)
    assert bool(done.stderr) == bool(told)


def test_output_that_cannot_be_read_is_told_and_is_a_failure(command: CommandLine, host: StubHost) -> None:
    serve_task(host, task_record(TASK))
    host.answer("GET", f"/api/tasks/{TASK}/stdout", {"detail": "the file is gone"}, 404)
    done = command.run("run", "true")
    assert done.returncode == 1
    assert b"stdout could not be read to the end: the file is gone" in done.stderr


def test_detach_prints_the_id_and_leaves(command: CommandLine, live: LiveTask) -> None:
    done = command.run("run", "--detach", "sleep", "9")
    assert (done.returncode, done.stdout.decode()) == (0, f"{TASK}\n")


def test_a_reader_of_stdout_that_leaves_does_not_end_the_task(command: CommandLine, host: StubHost) -> None:
    serve_task(host, task_record(TASK, status="failed", exit_code=4), stdout=[b"y\n" * 500_000])
    with subprocess.Popen(
        command.argv("run", "yes"),
        env=command.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(2) == b"y\n"
        process.stdout.close()
        assert process.wait(30) == 4
        assert process.stderr.read() == b""


def test_an_interrupt_without_a_terminal_leaves_the_task(command: CommandLine, live: LiveTask) -> None:
    with subprocess.Popen(
        command.argv("run", "sleep", "9"),
        env=command.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"first of stdout\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
        assert process.returncode == 130
    assert f"task kill {TASK}".encode() in told
    assert not live.killed.is_set()


def test_ctrl_c_then_kill_kills_the_task(command: CommandLine, live: LiveTask) -> None:
    with pty_session(command.argv("run", "sleep", "9"), command.environment()) as terminal:
        terminal.wait_for("first of stdout")
        terminal.send("\x03")
        terminal.wait_for("(k/d/c)")
        terminal.send("k\n")
        assert terminal.wait() == 137
    assert live.killed.is_set()
    assert "ended as killed" in terminal.text


@pytest.mark.parametrize("answer", ["d\n", "\x03"])
def test_ctrl_c_then_detach_or_again_leaves_the_task(
    command: CommandLine, live: LiveTask, answer: str
) -> None:
    with pty_session(command.argv("run", "sleep", "9"), command.environment()) as terminal:
        terminal.wait_for("first of stdout")
        terminal.send("\x03")
        terminal.wait_for("(k/d/c)")
        terminal.send(answer)
        assert terminal.wait() == 0
    assert not live.killed.is_set()
    assert f"task logs -f {TASK}" in terminal.text


def test_ctrl_c_then_continue_follows_on(command: CommandLine, live: LiveTask) -> None:
    with pty_session(command.argv("run", "sleep", "9"), command.environment()) as terminal:
        terminal.wait_for("first of stdout")
        terminal.send("\x03")
        terminal.wait_for("(k/d/c)")
        terminal.send("c\n")
        live.end("failed", exit_code=5)
        assert terminal.wait() == 5


def test_a_task_that_waits_shows_on_a_terminal_why(command: CommandLine, host: StubHost) -> None:
    reasons = [{"node": "n1", "reason": "4 cores wanted, 0 of 2 free \x1b[2J"}]
    live = LiveTask(host, "pending", pending_reasons=reasons)
    with pty_session(command.argv("run", "true"), command.environment()) as terminal:
        terminal.wait_for("n1: 4 cores wanted, 0 of 2 free")
        live.end("completed", exit_code=0)
        assert terminal.wait() == 0
    assert "\x1b[2J" not in terminal.text


REASONS = [{"node": f"n{number}", "reason": "0 of 2 cores free"} for number in range(9)]
NEVER = "no node of the cluster can ever hold it, so it waits for one that can: n1 has 2 cores"


@pytest.mark.parametrize(
    ("state", "fields", "told"),
    [
        (
            "pending",
            {"pending_reasons": REASONS},
            "waits for room: n0, n1, n2, n3, n4 and 4 more: 0 of 2 cores free",
        ),
        ("pending", {"pending_reasons": REASONS, "error_message": NEVER}, f"waits: {NEVER}"),
        ("pending_approval", {}, "waits for an operator's approval"),
    ],
)
@pytest.mark.parametrize(
    "arguments", [("run", "true"), ("task", "submit", "-w", "true"), ("task", "wait", TASK)]
)
def test_a_task_that_waits_says_why_without_a_terminal_too(
    command: CommandLine,
    host: StubHost,
    arguments: tuple[str, ...],
    state: str,
    fields: dict[str, object],
    told: str,
) -> None:
    live = LiveTask(host, state, **fields)
    with subprocess.Popen(
        command.argv(*arguments),
        env=command.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        own = (line for line in process.stderr if line != b"first of stderr\n")
        assert next(own).decode() == f"kohakuriver: task {TASK} {told}\n"
        live.end("completed", exit_code=0)
        assert list(own) == []
        assert process.wait(30) == 0


def test_what_no_node_can_hold_is_told_on_a_terminal_as_a_line_that_stays(
    command: CommandLine, host: StubHost
) -> None:
    live = LiveTask(host, "pending", pending_reasons=REASONS, error_message=NEVER)
    with pty_session(command.argv("run", "true"), command.environment()) as terminal:
        terminal.wait_for(f"kohakuriver: task {TASK} waits: {NEVER}")
        live.end("completed", exit_code=0)
        assert terminal.wait() == 0


def test_a_host_that_restarts_meanwhile_is_borne_with(command: CommandLine, host: StubHost) -> None:
    record = task_record(TASK)
    serve_task(host, record, stdout=[b"out\n"])
    running, ended = task_record(TASK, status="running"), record
    answers = chain([Answer(running), Answer({"detail": "starting"}, 503)], repeat(Answer(ended)))
    host.script("GET", f"/api/status/{TASK}", lambda request: next(answers))
    done = command.run("run", "true")
    assert (done.returncode, done.stdout) == (0, b"out\n")


def test_a_task_that_is_retried_is_followed_on_and_the_new_attempt_is_reported(
    command: CommandLine, host: StubHost
) -> None:
    host.answer("POST", "/api/submit", {"message": "", "task_ids": [TASK]}, 202)
    over = task_record(TASK, status="completed", exit_code=0, attempt=2, assigned_node="n2", retries=1)
    host.answer("GET", f"/api/status/{TASK}", over)

    def output(request: Request) -> Answer:
        stream = request.path.rsplit("/", 1)[1]
        return Answer([f"{stream} of attempt {request.query['attempt']}\n".encode()])

    for stream in ("stdout", "stderr"):
        host.script("GET", f"/api/tasks/{TASK}/{stream}", output)
    done = command.run("run", "--retries", "1", "true")
    assert done.returncode == 0
    assert done.stdout == b"stdout of attempt 1\nstdout of attempt 2\n"
    told = f"kohakuriver: attempt 2 of task {TASK} began on n2"
    lines = done.stderr.decode().splitlines()
    assert lines.count(told) == 1
    assert lines.index("stderr of attempt 2") > max(lines.index(told), lines.index("stderr of attempt 1"))
