"""What `run` does with its standard input, and which commands are scripts that it sends along."""

import base64
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.command_line import CommandLine
from support.stub_host import StubHost, serve_task, task_record

TASK = "310000000000004242"


def submitted(host: StubHost) -> dict[str, Any]:
    (request,) = host.calls("POST", "/api/submit")
    body: dict[str, Any] = request.json
    return body


def run(command: CommandLine, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command.argv(*arguments),
        env=command.environment(),
        capture_output=True,
        timeout=60,
        check=False,
        **options,
    )


def content(body: dict[str, Any], field: str = "stdin") -> bytes:
    return base64.b64decode(body[field], validate=True)


def test_a_pipe_that_ends_goes_with_the_task(command: CommandLine, host: StubHost) -> None:
    serve_task(host, task_record(TASK))
    data = bytes(range(256)) * 100
    assert run(command, "run", "--", "cat", input=data).returncode == 0
    body = submitted(host)
    assert (content(body), "stdin_streams" in body) == (data, False)


def test_a_file_goes_with_the_task(command: CommandLine, host: StubHost, tmp_path: Path) -> None:
    serve_task(host, task_record(TASK))
    (tmp_path / "job.py").write_bytes(b"print(1)\n")
    with (tmp_path / "job.py").open("rb") as file:
        assert run(command, "run", "--", "python3", "-", stdin=file).returncode == 0
    assert content(submitted(host)) == b"print(1)\n"


@pytest.mark.parametrize("how", ["empty", "null", "closed", "terminal", "-n", "--no-stdin"])
def test_what_is_no_input_is_not_sent(command: CommandLine, host: StubHost, tmp_path: Path, how: str) -> None:
    serve_task(host, task_record(TASK))
    arguments = ["run", "true"]
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL}
    if how.startswith("-"):
        arguments, options = ["run", how, "true"], {"input": b"for somebody else"}
    if how == "empty":
        options = {"input": b""}
    if how == "closed":
        options["preexec_fn"] = lambda: os.close(0)
    if how == "terminal":
        _master, options["stdin"] = os.openpty()
    assert run(command, *arguments, **options).returncode == 0
    body = submitted(host)
    assert ("stdin" in body and content(body) != b"", body.get("stdin_streams", False)) == (False, False)


def test_a_file_that_a_loop_reads_is_left_to_the_loop(
    command: CommandLine, host: StubHost, tmp_path: Path
) -> None:
    serve_task(host, task_record(TASK))
    (tmp_path / "list").write_text("one\ntwo\nthree\n")
    loop = 'while read -r line; do echo "<$line>"; "$@"; done < list'
    words = ["sh", "-c", loop, "sh", *command.argv("run", "true")]
    done = subprocess.run(
        words, cwd=tmp_path, env=command.environment(), capture_output=True, timeout=60, check=False
    )
    assert done.stdout == b"<one>\n<two>\n<three>\n"
    assert done.stderr.count(b"left to them") == 2
    assert [request.json.get("stdin") for request in host.calls("POST", "/api/submit")] == [None] * 3


def test_the_rest_of_a_file_is_handed_on_where_that_is_said(
    command: CommandLine, host: StubHost, tmp_path: Path
) -> None:
    serve_task(host, task_record(TASK))
    (tmp_path / "list").write_text("one\ntwo\n")
    with (tmp_path / "list").open("rb", buffering=0) as file:
        file.read(4)
        assert run(command, "run", "--stdin", "cat", stdin=file).returncode == 0
    assert content(submitted(host)) == b"two\n"


def test_a_pipe_that_never_ends_holds_up_nothing(command: CommandLine, host: StubHost) -> None:
    serve_task(host, task_record(TASK))
    reading, writing = os.pipe()
    try:
        assert run(command, "run", "true", stdin=reading).returncode == 0
    finally:
        os.close(writing)
        os.close(reading)
    assert submitted(host)["stdin_streams"] is True


@pytest.mark.parametrize("option", ["--detach", "--retries=1"])
def test_large_input_is_refused_where_it_cannot_be_sent(
    command: CommandLine, host: StubHost, option: str
) -> None:
    done = run(command, "run", option, "cat", input=b"x" * 300_000)
    assert (done.returncode, b"put it into a file" in done.stderr) == (2, True)
    assert host.calls("POST", "/api/submit") == []


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "job.sh"
    path.write_text("#!/bin/sh\necho $1\n")
    return path


@pytest.mark.parametrize(
    ("words", "is_sent"),
    [
        (("job.sh", "a b"), True),
        (("./job.sh", "a b"), False),
        (("--script", "./job.sh", "a b"), True),
        (("--no-script", "job.sh", "a b"), False),
        (("plain", "a b"), False),
        (("none", "a b"), False),
    ],
)
@pytest.mark.parametrize("verb", [("task", "submit"), ("run",)])
def test_the_plain_name_of_a_script_means_the_script(
    command: CommandLine,
    host: StubHost,
    script: Path,
    verb: tuple[str, ...],
    words: tuple[str, ...],
    is_sent: bool,
) -> None:
    serve_task(host, task_record(TASK))
    (script.parent / "plain").write_text("no script\n")
    done = run(command, *verb, *words, cwd=script.parent, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    body = submitted(host)
    assert (body["command"], body["arguments"]) == (words[-2], ["a b"])
    assert ("script" in body) == is_sent
    if is_sent:
        assert content(body, "script") == script.read_bytes()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("none", None, b"cannot be read"),
        ("plain", "echo 1\n", b"#!/bin/sh"),
        ("large", "#!/bin/sh\n" + "#" * 300_000, b"larger than 256 KiB"),
    ],
)
def test_a_script_that_cannot_be_sent_is_refused(
    command: CommandLine, host: StubHost, tmp_path: Path, name: str, text: str | None, told: bytes
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    done = run(command, "task", "submit", "--script", name, cwd=tmp_path, stdin=subprocess.DEVNULL)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr
    assert host.calls("POST", "/api/submit") == []
