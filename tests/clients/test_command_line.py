"""The command as a process: exit statuses, pure machine output, what is sent, and how errors are told."""

import json
import os
import subprocess

import pytest
import yaml

from support.clients.answers import ENDED, NODE, TASK, TOKEN
from support.clients.command_line import CommandLine
from support.clients.stub_host import Answer, Request, StubHost, task_record

Words = tuple[str, ...]
ENVIRONMENT = {
    "name": "lab",
    "latest_timestamp": 1700000000,
    "latest_tarball": "lab-1700000000.tar",
    "size_bytes": 1 << 20,
    "all_versions": [{"timestamp": 1700000000, "tarball": "lab-1700000000.tar", "size_bytes": 1 << 20}],
}
CONTAINER = {"name": "kohakuriver-env-lab", "env_name": "lab", "image": "debian", "status": "running"}
OLD_CONTAINER = {"name": "lab", "container": "kohakuriver-env-lab", "image": "debian", "status": "running"}
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


def test_a_list_may_be_of_ones_own_tasks(command: CommandLine, host: StubHost) -> None:
    host.answer("GET", "/api/tasks/my", [ENDED])
    assert command.run("task", "list", "--mine", "-n", "n1", "-o", "name").stdout.decode() == f"{TASK}\n"
    assert host.calls("GET", "/api/tasks/my")[0].query["node"] == "n1"


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


def test_one_bad_task_does_not_stop_the_others(command: CommandLine, host: StubHost) -> None:
    host.answer("POST", f"/api/kill/{TASK}", {"message": "killed"})
    done = command.run("task", "kill", "310000000000000000", TASK)
    assert (done.returncode, done.stdout) == (3, b"killed\n")
    assert b"310000000000000000" in done.stderr


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
    assert command.completions(words) == expected


def test_completion_is_silent_when_the_host_is_down(command: CommandLine, host: StubHost) -> None:
    host.close()
    assert command.completions("kohakuriver node status ") == []


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
