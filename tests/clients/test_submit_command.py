"""`task submit` and `run`: what is sent of the options, and what comes of refused targets."""

from pathlib import Path

import pytest

from support.clients.answers import ENDED, TASK
from support.clients.command_line import CommandLine
from support.clients.stub_host import StubHost, serve_task


def test_a_submission_carries_every_option(command: CommandLine, host: StubHost) -> None:
    serve_task(host, ENDED)
    done = command.run(
        *("task", "submit", "-t", "n1:0::0,1", "-t", "n2", "-c", "2", "-m", "1.5G", "--container", "lab"),
        *("--env", "A=b=c", "-e", "EMPTY=", "--workdir", "/w", "--privileged", "--mount", "/a:/b:ro"),
        *("--cap-add", "cap_sys_ptrace", "--cap-add", "NET_RAW"),
        *("--shm-size", "1G", "--ulimit", "nofile=9", "--ulimit", "memlock=-1", "--ipc", "none"),
        *("--device", "/dev/fuse", "-u", "7:8", "--hostname", "box", "--grace", "9", "--retries", "2"),
        *("--ip-token", "tok", "--name", "train", "--priority", "-3", "--"),
        *("python", "-c", "print(1)", "--help"),
    )
    assert (done.returncode, done.stdout.decode()) == (0, f"{TASK}\n")
    assert host.requests[-1].json == {
        "command": "python",
        "arguments": ["-c", "print(1)", "--help"],
        "env_vars": {"A": "b=c", "EMPTY": ""},
        "required_cores": 2,
        "required_memory_bytes": 3 << 29,
        "targets": ["n1:0::0,1", "n2"],
        "container_name": "lab",
        "working_dir": "/w",
        "privileged": True,
        "capabilities": ["SYS_PTRACE", "NET_RAW"],
        "additional_mounts": ["/a:/b:ro"],
        "shm_size_bytes": 1 << 30,
        "ulimits": ["nofile=9:9", "memlock=-1:-1"],
        "ipc": "none",
        "devices": ["/dev/fuse:/dev/fuse:rwm"],
        "user": "7:8",
        "hostname": "box",
        "ip_reservation_token": "tok",
        "name": "train",
        "priority": -3,
        "grace_seconds": 9,
        "retries": 2,
    }


@pytest.mark.parametrize(
    ("words", "program", "arguments"),
    [
        ((), None, None),
        (("--image-entrypoint", "-x", "y"), None, ["-x", "y"]),
        (("--entrypoint", "prog"), "prog", None),
        (("--entrypoint", "prog", "-x"), "prog", ["-x"]),
    ],
)
def test_the_command_may_be_the_images(
    command: CommandLine, host: StubHost, words: tuple[str, ...], program: str, arguments: list[str]
) -> None:
    serve_task(host, ENDED)
    options = [word for word in words if word.startswith("--") or word == "prog"]
    rest = [word for word in words if word not in options]
    image = ("--image", "debian:12", "--pull", "always")
    done = command.run("task", "submit", *image, *options, "--", *rest)
    assert done.returncode == 0, done.stderr
    sent = host.requests[-1].json
    assert (sent.get("command"), sent.get("arguments")) == (program, arguments)
    assert (sent["registry_image"], sent["pull"]) == ("debian:12", "always")


@pytest.mark.parametrize("words", [(), ("--image-entrypoint", "x"), ("--container", "lab")])
def test_without_a_registry_image_a_command_is_needed(command: CommandLine, words: tuple[str, ...]) -> None:
    done = command.run("run", *words)
    assert done.returncode == 2
    assert b"COMMAND" in done.stderr


def test_run_takes_dockers_short_options(command: CommandLine, host: StubHost, tmp_path: Path) -> None:
    serve_task(host, ENDED)
    (tmp_path / "variables").write_text("A=1\nB=2\n")
    options = ("-d", "-v", "/a:/b:ro", "-w", "/w", "-e", "B=3", "--env-file", str(tmp_path / "variables"))
    done = command.run("run", *options, "true")
    assert done.returncode == 0, done.stderr
    sent = host.requests[-1].json
    assert (sent["additional_mounts"], sent["working_dir"]) == (["/a:/b:ro"], "/w")
    assert sent["env_vars"] == {"A": "1", "B": "3"}


def test_options_of_the_command_need_no_dashes_before(command: CommandLine, host: StubHost) -> None:
    serve_task(host, ENDED)
    command.run("task", "submit", "ls", "-l", "-m", "x")
    assert host.requests[-1].json["arguments"] == ["-l", "-m", "x"]


def test_refused_targets_of_a_batch_are_told_and_it_is_1(command: CommandLine, host: StubHost) -> None:
    refused = [{"target": "n9", "reason": "no such node"}]
    host.answer("POST", "/api/submit", {"task_ids": [TASK], "message": "", "failed_targets": refused}, 202)
    done = command.run("task", "submit", "-t", "n1", "-t", "n9", "true")
    assert (done.returncode, done.stdout.decode()) == (1, f"{TASK}\n")
    assert b"n9: no such node" in done.stderr
