"""Input and scripts of tasks on a real cluster: every byte once, over restarts too, or a clear end."""

import hashlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.cluster import BIN, Cluster, wait_for

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(300),
]


def test_a_pipe_is_the_commands_input(cluster: Cluster) -> None:
    done = cluster.cli("run", "--", "cat", input=b"x\n")
    assert (done.stdout, done.returncode) == (b"x\n", 0)


def test_a_program_comes_from_a_file(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "job").write_text("echo $1\nexit 4\n")
    with (tmp_path / "job").open("rb") as file:
        done = cluster.cli("run", "--", "sh", "-s", "one", stdin=file)
    assert (done.stdout, done.returncode) == (b"one\n", 4)


def test_large_input_is_streamed_byte_for_byte(cluster: Cluster) -> None:
    data = os.urandom(8 << 20)
    done = cluster.cli("run", "--", "sha256sum", input=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert done.stderr == b""


def test_a_command_that_reads_a_part_ends_as_it_does(cluster: Cluster) -> None:
    done = cluster.cli("run", "--", "head", "-c", "3", input=b"abcdef" * 1_000_000)
    assert (done.stdout, done.returncode) == (b"abc", 0)


def test_a_command_without_input_reads_an_end_of_file(cluster: Cluster) -> None:
    done = cluster.cli("run", "--", "cat", stdin=subprocess.DEVNULL)
    assert (done.stdout, done.returncode) == (b"", 0)


def test_a_loop_keeps_its_input(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("one\ntwo\n")
    loop = 'while read -r word; do "$0" run -n -- echo "$word"; done'
    environment = {**os.environ, "HOME": str(cluster.host_home), **cluster.cli_environment()}
    done = subprocess.run(
        ["sh", "-c", f"cat list | {loop}", str(BIN / "kohakuriver")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == b"one\ntwo\n", done.stderr


def _slowly(cluster: Cluster, *command: str) -> "subprocess.Popen[bytes]":
    """`run` with an input that the test writes while it runs."""
    return subprocess.Popen(
        [str(BIN / "kohakuriver"), "run", "--name", "slow-input", "--", *command],
        env={**os.environ, "HOME": str(cluster.host_home), **cluster.cli_environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _task_id(cluster: Cluster) -> str:
    def newest() -> str | None:
        found = cluster.api("GET", "/api/tasks?name=slow-input&limit=1")
        return found[0]["task_id"] if found and found[0]["status"] == "running" else None

    return str(wait_for(newest, "the task with input"))


def _write(process: "subprocess.Popen[bytes]", data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


def test_input_goes_on_over_restarts_of_the_host_and_is_cut_off_with_its_runner(lone_host: Cluster) -> None:
    lone_host.add_runner("kr-input")
    host = lone_host.host
    assert host is not None
    with _slowly(lone_host, "cat") as process:
        try:
            _write(process, b"before\n")
            task_id = _task_id(lone_host)
            wait_for(lambda: lone_host.output(task_id) == b"before\n", "what was sent first")
            for _ in range(2):
                host.end(signal.SIGKILL)
                _write(process, b"meanwhile\n")
                host.start()
                lone_host.await_health()
            out, err = process.communicate(b"after\n", timeout=120)
        finally:
            process.kill()
    assert (out, process.returncode) == (b"before\nmeanwhile\nmeanwhile\nafter\n", 0), err
    with _slowly(lone_host, "cat") as process:
        try:
            _write(process, b"before\n")
            task_id = _task_id(lone_host)
            wait_for(lambda: lone_host.output(task_id) == b"before\n", "what was sent first")
            lone_host.runners["kr-input"].end(signal.SIGKILL)
            lone_host.runners["kr-input"].start()
            record = lone_host.finished(task_id)
            _, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert record["status"] == "failed"
    assert "its standard input was cut off" in record["error_message"]
    assert (process.returncode != 0, b"cut off" in err) == (True, True), err


_SCRIPT = """#!/bin/sh
echo "$#" "$1" "$2"
cat
exit 6
"""


def test_a_script_is_sent_and_run_by_its_interpreter(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text(_SCRIPT)
    done = cluster.cli("run", "job.sh", "a b", "c", cwd=tmp_path, input=b"and input\n")
    assert (done.stdout, done.returncode) == (b"2 a b c\nand input\n", 6)
    sent = cluster.cli("task", "submit", "--wait", "job.sh", "d", cwd=tmp_path, stdin=subprocess.DEVNULL)
    assert sent.returncode == 6
    record = cluster.status(sent.stdout.decode().strip())
    assert (record["command"], record["arguments"], record["script"]) == ("job.sh", ["d"], _SCRIPT)
    assert record["script_bytes"] == len(_SCRIPT)


def test_a_script_whose_interpreter_is_not_there_says_so(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("#!/usr/bin/no-such-python\n")
    sent = cluster.cli("task", "submit", "job.py", cwd=tmp_path, stdin=subprocess.DEVNULL)
    record = cluster.finished(sent.stdout.decode().strip())
    assert record["status"] == "failed"
    assert "first line of the script" in record["error_message"]
