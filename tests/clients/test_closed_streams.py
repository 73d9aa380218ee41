"""Commands whose standard input, output or error is closed, as some schedulers and scripts start them."""

import subprocess

import pytest

from support.clients.command_line import CommandLine
from support.clients.stub_host import StubHost, serve_task, task_record

TASK = "310000000000004242"


def closed(command: CommandLine, how: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {how}', "sh", *command.argv(*arguments)],
        env=command.environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("how", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_task_is_followed_whatever_is_closed(command: CommandLine, host: StubHost, how: str) -> None:
    """Its output is written to no connection that got the number of the stream."""
    task = task_record(TASK, status="failed", exit_code=7)
    serve_task(host, task, stdout=[b"out\n"], stderr=[b"err\n"])
    done = closed(command, how, "run", "--", "cat")
    assert done.returncode == 7
    assert b"Traceback" not in done.stderr
    assert (b"out\n" in done.stdout, b"err\n" in done.stderr) == (" >&-" not in f" {how}", "2>&-" not in how)
    assert len(host.calls("POST", "/api/submit")) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("vps", "delete", TASK),
        ("docker", "login", "registry.example", "-u", "ann", "--password-stdin"),
        ("docker", "login", "registry.example", "-u", "ann"),
        ("auth", "login", "--token", "-"),
        ("connect", TASK),
    ],
)
def test_what_needs_input_says_so_where_there_is_none(
    command: CommandLine, host: StubHost, arguments: tuple[str, ...]
) -> None:
    host.answer("GET", f"/api/status/{TASK}", task_record(TASK) | {"task_type": "vps"})
    done = closed(command, "<&-", *arguments)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") <= 4
    assert b"Error: " in done.stderr
    assert b"Traceback" not in done.stderr
