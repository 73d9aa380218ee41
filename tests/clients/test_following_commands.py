"""What goes on while a command runs: logs, waiting and watched lists."""

import json
import subprocess

import pytest

from support.clients.answers import ENDED, NODE, TASK
from support.clients.command_line import CommandLine
from support.clients.stub_host import Answer, StubHost, serve_task, task_record


@pytest.mark.parametrize("flag", [(), ("--stderr",)])
def test_logs_are_printed_byte_for_byte(command: CommandLine, host: StubHost, flag: tuple[str, ...]) -> None:
    every_byte = bytes(range(256)) * 300
    serve_task(host, ENDED, stdout=[every_byte], stderr=[every_byte[::-1]])
    done = command.run("task", "logs", *flag, TASK)
    assert done.stdout == (every_byte[::-1] if flag else every_byte)


def test_tail_and_follow_reach_the_host(command: CommandLine, host: StubHost) -> None:
    serve_task(host, ENDED, stdout=[b"x\n"])
    assert command.run("task", "logs", "-f", "--tail", "5", TASK).stdout == b"x\n"
    assert host.requests[-1].query == {"follow": "true", "lines": "5"}


def test_a_reader_that_leaves_early_gets_no_complaint(command: CommandLine, host: StubHost) -> None:
    host.answer("GET", "/api/tasks", [task_record(str(10**17 + number)) for number in range(3000)])
    with subprocess.Popen(
        command.argv("task", "list"),
        env=command.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


def test_wait_ends_with_the_first_status_that_is_not_0(command: CommandLine, host: StubHost) -> None:
    for number, exit_code in enumerate((0, 7, 9)):
        task_id = f"31000000000000000{number}"
        state = "failed" if exit_code else "completed"
        record = task_record(task_id, status=state, exit_code=exit_code)
        host.answer("GET", f"/api/status/{task_id}", record)
    ids = [f"31000000000000000{number}" for number in range(3)]
    assert command.run("task", "wait", ids[0]).returncode == 0
    assert command.run("task", "wait", *ids).returncode == 7


def test_watch_prints_each_change_of_state(command: CommandLine, host: StubHost) -> None:
    states = iter(["pending", "pending", "running", "completed"])
    host.script("GET", f"/api/status/{TASK}", lambda _: Answer(task_record(TASK, status=next(states))))
    lines = command.run("task", "watch", TASK).stdout.decode().split("\n")[:-1]
    assert [line.split()[1] for line in lines] == ["pending", "running", "completed"]


def test_a_watched_list_gives_one_json_line_each_time(command: CommandLine, host: StubHost) -> None:
    host.answer("GET", "/api/nodes", [NODE])
    with subprocess.Popen(
        command.argv("node", "list", "--watch", "0.1", "-o", "json"),
        env=command.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline()) for _ in range(3)] == [[NODE]] * 3
        process.send_signal(2)
        assert process.wait(30) == 130
