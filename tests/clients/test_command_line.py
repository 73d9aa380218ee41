"""The command as a process: exit statuses, pure machine output, what is sent, and how errors are told."""

import json
import os
import subprocess
from itertools import chain, repeat
from pathlib import Path

import pytest
import yaml

from support.clients.command_line import CommandLine
from support.clients.stub_host import Answer, Request, StubHost, serve_task, task_record

Words = tuple[str, ...]

TASK = "310000000000004242"
ENDED = task_record(TASK)
NODE = {"hostname": "n1", "status": "online", "total_cores": 2, "of_the_future": [1]}
ENVIRONMENT = {
    "name": "lab",
    "latest_timestamp": 1700000000,
    "latest_tarball": "lab-1700000000.tar",
    "size_bytes": 1 << 20,
    "all_versions": [{"timestamp": 1700000000, "tarball": "lab-1700000000.tar", "size_bytes": 1 << 20}],
}
CONTAINER = {"name": "kohakuriver-env-lab", "env_name": "lab", "image": "debian", "status": "running"}
OLD_CONTAINER = {"name": "lab", "container": "kohakuriver-env-lab", "image": "debian", "status": "running"}
TOKEN = {"token_id": "t1", "expires_at": "2026-11-30T00:00:00Z", "token": "krj1.t1.s.f"}
SECOND = {"hostname": "n1", "cpu_percent": 10, "memory_percent": 20}
HEALTH = {"nodes": [[SECOND]], "aggregate": [{"cpu_percent": 10}]}

LISTS = [
    (("task", "list"), "/api/tasks", [ENDED], [TASK]),
    (("task", "status", TASK), f"/api/status/{TASK}", ENDED, [TASK]),
    (("node", "list"), "/api/nodes", [NODE], ["n1"]),
    (("node", "health"), "/api/health", HEALTH, ["n1"]),
    (("node", "join-token", "list"), "/api/nodes/join-tokens", [TOKEN], ["t1"]),
    (("docker", "images"), "/api/docker/list", [ENVIRONMENT], ["lab"]),
    (("docker", "tar", "list"), "/api/docker/list", [ENVIRONMENT], ["lab-1700000000.tar"]),
    (("docker", "container", "list"), "/api/docker/host/containers", [CONTAINER], ["lab"]),
    (("docker", "container", "list"), "/api/docker/host/containers", [OLD_CONTAINER], ["lab"]),
]


@pytest.mark.parametrize(("arguments", "path", "answer", "names"), LISTS)
def test_machine_output_is_the_answer_of_the_api_and_nothing_else(
    command: CommandLine,
    host: StubHost,
    arguments: tuple[str, ...],
    path: str,
    answer: object,
    names: list[str],
) -> None:
    host.answer("GET", path, answer)
    assert json.loads(command.run(*arguments, "-o", "json").stdout) == answer
    assert yaml.safe_load(command.run(*arguments, "-o", "yaml").stdout) == answer
    assert command.run(*arguments, "-o", "name").stdout.decode().split() == names
    table = command.run(*arguments)
    assert table.returncode == 0
    assert b"\x1b" not in table.stdout
    assert table.stderr == b""


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, 4), (403, 4), (404, 3), (409, 1), (413, 2), (422, 2), (500, 1), (502, 1), (503, 1)],
)
def test_a_refusal_is_one_line_on_stderr_and_its_exit_status(
    command: CommandLine, host: StubHost, status: int, expected: int
) -> None:
    host.answer("GET", "/api/nodes", {"detail": "say \x1b[2J why"}, status)
    done = command.run("node", "list", "-o", "json")
    assert done.returncode == expected
    assert done.stdout == b""
    assert done.stderr == b"Error: say \\x1b[2J why\n"


def test_an_unreachable_host_is_5(command: CommandLine, host: StubHost) -> None:
    host.close()
    done = command.run("node", "list")
    assert (done.returncode, done.stdout) == (5, b"")
    assert b"kohakuriver up" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("task", "lst"),
        ("run",),
        ("run", "-m", "abc", "true"),
        ("run", "-m", "512", "true"),
        ("run", "-m", "5M", "true"),
        ("vps", "create", "-m", "512"),
        ("run", "-c", "-1", "true"),
        ("run", "-t", "bad host", "true"),
        ("run", "-t", "n1::0,0", "true"),
        ("run", "-t", "n1", "-t", "n2", "true"),
        ("run", "--mount", "/a,b:/c", "true"),
        ("run", "--env", "=x", "true"),
        ("run", "--env-file", "/no/such/file", "true"),
        ("run", "-v", "data:/x", "true"),
        ("run", "-c", "0.001", "true"),
        ("run", "--name", "../x", "true"),
        ("run", "--container", "../x", "true"),
        ("run", "--image", "-x", "true"),
        ("run", "--container", "a", "--image", "b", "true"),
        ("run", "--priority", "5000", "true"),
        ("task", "list", "-s", "nonsense"),
        ("task", "list", "-l", "0"),
        ("task", "logs", "--tail", "-1", TASK),
        ("-P", "70000", "node", "list"),
        ("-H", "http://x/y", "node", "list"),
        ("docker", "container", "shell", "lab"),
    ],
)
def test_wrong_use_is_2_and_reaches_no_host(
    command: CommandLine, host: StubHost, arguments: tuple[str, ...]
) -> None:
    done = command.run(*arguments)
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"Error: " in done.stderr
    assert b"Traceback" not in done.stderr
    assert host.requests == []


def test_memory_without_a_unit_is_asked_about(command: CommandLine) -> None:
    assert b"did you mean 512M?" in command.run("task", "submit", "-m", "512", "true").stderr


def test_arguments_that_are_no_utf8_are_a_wrong_use(command: CommandLine, host: StubHost) -> None:
    done = subprocess.run(
        [*command.argv("run", "echo"), b"\xff\xfe"],
        env=command.environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert host.requests == []


def test_a_bad_cli_config_is_78(command: CommandLine) -> None:
    folder = command.home / ".kohakuriver"
    folder.mkdir()
    (folder / "cli_config.py").write_text("PORT = 'x'\n")
    done = CommandLine(command.home).run("node", "list")
    assert done.returncode == 78
    assert b"PORT" in done.stderr


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


def test_a_list_may_be_of_ones_own_tasks(command: CommandLine, host: StubHost) -> None:
    host.answer("GET", "/api/tasks/my", [ENDED])
    assert command.run("task", "list", "--mine", "-n", "n1", "-o", "name").stdout.decode() == f"{TASK}\n"
    assert host.calls("GET", "/api/tasks/my")[0].query["node"] == "n1"


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


def test_a_short_id_or_a_name_is_resolved_by_the_host(command: CommandLine, host: StubHost) -> None:
    host.answer("GET", "/api/tasks/resolve", {"task_id": TASK})
    host.answer("GET", f"/api/status/{TASK}", ENDED)
    assert command.run("task", "status", "train").returncode == 0
    assert host.calls("GET", "/api/tasks/resolve")[0].query == {"ref": "train"}


@pytest.mark.parametrize(
    ("arguments", "method", "path", "query"),
    [
        (("task", "kill", TASK), "POST", f"/api/kill/{TASK}", {}),
        (("task", "pause", TASK), "POST", f"/api/command/{TASK}/pause", {}),
        (("task", "resume", TASK), "POST", f"/api/command/{TASK}/resume", {}),
        (("task", "approve", TASK), "POST", f"/api/approve/{TASK}", {}),
        (("task", "reject", TASK, "--reason", "no"), "POST", f"/api/reject/{TASK}", {"reason": "no"}),
        (("node", "approve", "n1", "--fingerprint", "f"), "POST", "/api/nodes/n1/approve", {}),
        (("node", "reject", "n1", "--fingerprint", "f"), "POST", "/api/nodes/n1/reject", {}),
        (("node", "drain", "n1", "--move"), "POST", "/api/nodes/n1/drain", {}),
        (("node", "undrain", "n1"), "POST", "/api/nodes/n1/undrain", {}),
        (("node", "leftovers", "n1", "--adopt", "n0"), "POST", "/api/nodes/n1/leftovers", {}),
        (("node", "leftovers", "n1", "--end", "n0"), "POST", "/api/nodes/n1/leftovers", {}),
        (("node", "remove", "n1"), "DELETE", "/api/nodes/n1", {}),
        (("node", "remove", "n1", "--force"), "DELETE", "/api/nodes/n1", {"force": "true"}),
        (("node", "join-token", "delete", "t1"), "DELETE", "/api/nodes/join-tokens/t1", {}),
        (("docker", "container", "create", "debian:12", "lab"), "POST", "/api/docker/host/create", {}),
        (("docker", "container", "start", "lab"), "POST", "/api/docker/host/start/lab", {}),
        (("docker", "container", "stop", "lab"), "POST", "/api/docker/host/stop/lab", {}),
        (("docker", "container", "delete", "lab"), "POST", "/api/docker/host/delete/lab", {"force": "false"}),
        (("docker", "container", "migrate", "lab"), "POST", "/api/docker/host/migrate/lab", {}),
        (("docker", "tar", "create", "lab"), "POST", "/api/docker/create_tar/lab", {}),
        (("docker", "tar", "delete", "lab"), "DELETE", "/api/docker/container/lab", {}),
        (("docker", "delete", "lab"), "DELETE", "/api/docker/container/lab", {}),
    ],
)
def test_a_command_makes_its_call(
    command: CommandLine,
    host: StubHost,
    arguments: tuple[str, ...],
    method: str,
    path: str,
    query: dict[str, str],
) -> None:
    host.answer(method, path, {"message": "it is done"})
    done = command.run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"it is done\n", b"")
    assert host.calls(method, path)[0].query == query


def test_what_a_node_holds_under_another_name_is_listed_and_decided_about(
    command: CommandLine, host: StubHost
) -> None:
    left = {"node": "n0", "task_id": TASK, "attempt": 2, "status": "running", "cores": 3, "gpus": [0, 1]}
    host.answer("GET", "/api/nodes", [{**NODE, "leftovers": [left]}])
    row = command.run("node", "leftovers", "n1").stdout.decode().splitlines()[1]
    assert row.split() == ["n0", TASK, "2", "running", "3", "0B", "0,1"]
    assert command.run("node", "leftovers", "n1", "-o", "json").stdout.decode().count(TASK) == 1
    assert b"holds 1 of another node's workloads" in command.run("node", "list").stdout
    host.answer("POST", "/api/nodes/n1/leftovers", {"message": "done"})
    assert command.run("node", "leftovers", "n1", "--adopt", "n0").returncode == 0
    [call] = host.calls("POST", "/api/nodes/n1/leftovers")
    assert call.json == {"from_node": "n0", "choice": "adopt"}
    both = command.run("node", "leftovers", "n1", "--adopt", "n0", "--end", "n0")
    assert (both.returncode, b"take one" in both.stderr) == (2, True)
    assert command.run("node", "leftovers", "n9").returncode == 3


def test_a_drain_that_waits_returns_when_nothing_is_there_any_more(
    command: CommandLine, host: StubHost
) -> None:
    host.answer("POST", "/api/nodes/n1/drain", {"message": "it is being drained", "task_ids": [TASK]})
    counts = chain([1], repeat(0))
    host.script("GET", "/api/nodes", lambda _: Answer([{**NODE, "draining": True, "tasks": next(counts)}]))
    done = command.run("node", "drain", "n1", "--wait")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"it is being drained\n", b"")
    assert len(host.calls("GET", "/api/nodes")) == 2
    assert host.calls("POST", "/api/nodes/n1/drain")[0].json == {"move": False}


def test_a_drain_that_somebody_ends_is_not_waited_for(command: CommandLine, host: StubHost) -> None:
    host.answer("POST", "/api/nodes/n1/drain", {"message": "it is being drained"})
    host.answer("GET", "/api/nodes", [{**NODE, "draining": False, "tasks": 1}])
    done = command.run("node", "drain", "n1", "--wait")
    assert done.returncode != 0
    assert b"undrained" in done.stderr


def test_a_node_that_is_being_drained_shows_what_is_there_still(command: CommandLine, host: StubHost) -> None:
    host.answer("GET", "/api/nodes", [{**NODE, "draining": True, "tasks": 1}])
    running = task_record(TASK, status="running", exit_code=None, assigned_node="n1")
    host.script(
        "GET", "/api/tasks", lambda asked: Answer([running] if asked.query["status"] == "running" else [])
    )
    shown = command.run("node", "status", "n1").stdout.decode()
    assert "yes, 1 task is still there" in shown
    assert TASK in shown
    assert "is being drained" in command.run("node", "list").stdout.decode()


@pytest.mark.parametrize(("words", "path"), [(("task", "list"), "/api/tasks"), (("vps", "list"), "/api/vps")])
@pytest.mark.parametrize("there", [3, 4])
def test_a_list_that_is_cut_says_so(
    command: CommandLine, host: StubHost, words: Words, path: str, there: int
) -> None:
    records = [task_record(str(10**17 + number)) for number in range(there)]

    def page(asked: Request) -> Answer:
        begin = int(asked.query.get("offset", 0))
        return Answer(records[begin : begin + int(asked.query["limit"])])

    host.script("GET", path, page)
    for form in ("table", "json", "name"):
        done = command.run(*words, "-l", "3", "-o", form)
        assert done.returncode == 0
        assert (b"there are more" in done.stderr) == (there > 3)
        assert b"there are more" not in done.stdout


def test_a_node_with_more_tasks_than_are_listed_says_how_many(command: CommandLine, host: StubHost) -> None:
    host.answer("GET", "/api/nodes", [{**NODE, "draining": True, "tasks": 5}])
    running = task_record(TASK, status="running", exit_code=None, assigned_node="n1")
    host.script(
        "GET", "/api/tasks", lambda asked: Answer([running] if asked.query["status"] == "running" else [])
    )
    assert b"4 more tasks and VPSs" in command.run("node", "status", "n1").stdout


def test_one_bad_task_does_not_stop_the_others(command: CommandLine, host: StubHost) -> None:
    host.answer("POST", f"/api/kill/{TASK}", {"message": "killed"})
    done = command.run("task", "kill", "310000000000000000", TASK)
    assert (done.returncode, done.stdout) == (3, b"killed\n")
    assert b"310000000000000000" in done.stderr


def test_a_join_token_is_printed_alone(command: CommandLine, host: StubHost) -> None:
    host.answer("POST", "/api/nodes/join-tokens", TOKEN)
    done = command.run("node", "join-token", "create", "--expires-hours", "2")
    assert done.stdout == b"krj1.t1.s.f\n"
    assert host.requests[-1].json == {"expires_hours": 2}


def test_a_join_token_comes_with_an_address_that_the_new_node_can_use(
    command: CommandLine, host: StubHost
) -> None:
    host.answer("POST", "/api/nodes/join-tokens", TOKEN | {"host_address": "192.0.2.7", "host_port": 8000})
    said = command.run("node", "join-token", "create").stderr
    assert b"HOST_ADDRESS = '192.0.2.7', HOST_PORT = 8000" in said
    assert b"HOST_REACHABLE_ADDRESS" not in said
    host.answer("POST", "/api/nodes/join-tokens", TOKEN | {"host_address": "127.0.0.1", "host_port": 8000})
    said = command.run("node", "join-token", "create").stderr
    assert b"HOST_ADDRESS = '127.0.0.1'" not in said
    assert b"HOST_REACHABLE_ADDRESS" in said


def test_the_status_of_an_unknown_node_is_not_found(command: CommandLine, host: StubHost) -> None:
    host.answer("GET", "/api/nodes", [NODE])
    assert command.run("node", "status", "n9").returncode == 3
    assert json.loads(command.run("node", "status", "n1", "-o", "json").stdout) == NODE


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


def test_the_token_is_sent_as_a_bearer_and_shown_nowhere(command: CommandLine, host: StubHost) -> None:
    def script(request: Request) -> Answer:
        return Answer({"detail": "this token is not valid"}, 401)

    host.script("GET", "/api/nodes", script)
    done = command.run("node", "list", KOHAKURIVER_TOKEN="canary-token")
    assert host.requests[-1].headers["authorization"] == "Bearer canary-token"
    assert b"canary" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("kohakuriver no", ["node"]),
        ("kohakuriver task st", ["status"]),
        ("kohakuriver node status ", ["n1"]),
        ("kohakuriver task logs tr", ["train"]),
        ("kohakuriver run --container ", ["lab"]),
        ("kohakuriver docker container stop l", ["lab"]),
    ],
)
def test_completion_offers_commands_and_names(
    command: CommandLine, host: StubHost, words: str, expected: list[str]
) -> None:
    host.answer("GET", "/api/nodes", [NODE])
    host.answer("GET", "/api/tasks", [task_record(TASK, name="train")])
    host.answer("GET", "/api/docker/list", [ENVIRONMENT])
    host.answer("GET", "/api/docker/host/containers", [CONTAINER])
    assert complete(command, words) == expected


def test_completion_is_silent_when_the_host_is_down(command: CommandLine, host: StubHost) -> None:
    host.close()
    assert complete(command, "kohakuriver node status ") == []


def complete(command: CommandLine, words: str) -> list[str]:
    done = command.run(
        _KOHAKURIVER_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1)
    )
    assert done.stderr == b""
    return [line.split(",", 1)[1] for line in done.stdout.decode().split("\n") if line]


def test_a_message_that_nobody_reads_gets_no_complaint(command: CommandLine, host: StubHost) -> None:
    host.answer("POST", f"/api/kill/{TASK}", {"message": "killed"})
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            command.argv("task", "kill", TASK),
            env=command.environment(),
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_prune_shows_what_goes_and_fails_with_what_cannot(command: CommandLine, host: StubHost) -> None:
    items = [{"kind": "output", "place": "host", "count": 3, "size_bytes": 3 << 20, "kept_days": 180}]
    would = {"items": items, "faults": []}
    host.answer("GET", "/api/prune", would)
    host.answer("POST", "/api/prune", {"items": items, "faults": [{"place": "n1", "message": "unreachable"}]})
    assert json.loads(command.run("prune", "--dry-run", "-o", "json").stdout) == would
    assert host.calls("POST", "/api/prune") == []
    done = command.run("prune")
    assert (done.returncode, b"n1: unreachable" in done.stderr) == (1, True)
    for text in (b"output", b"host", b"3M", b"180d"):
        assert text in done.stdout
