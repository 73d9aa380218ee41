"""What people type who come from KohakuRiver 1.0: its options and commands, by their names there."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.clients.command_line import CommandLine
from support.clients.stub_host import Answer, Request, StubHost, task_record

VPS = "310000000000004242"
NODES = [{"hostname": "n1", "status": "online", "total_cores": 2}, {"hostname": "n2", "status": "offline"}]
TASKS = [task_record(VPS)]
ME = {"name": "ada", "username": "ada", "role": "operator", "auth_enabled": True, "token_id": "t9"}
ENVIRONMENT = {"name": "lab", "latest_timestamp": 1_700_000_000, "all_versions": []}
SNAPSHOT = {"timestamp": 1_700_000_000, "message": "hello"}
ASSIGNMENT = {"user_id": 2, "username": "ben"}
TOKEN = {"id": 7, "token_id": "t7", "name": "ci", "role": "user", "created_at": "2026-11-01T00:00:00Z"}


def serve_cluster(host: StubHost) -> None:
    host.answer("GET", "/api/nodes", NODES)
    host.answer("GET", "/api/tasks", TASKS)


def kept(command: CommandLine) -> Any:
    return json.loads((command.home / ".kohakuriver" / "tokens.json").read_text())


def sent_token(request: Request) -> str | None:
    return request.headers.get("Authorization") or request.headers.get("authorization")


def test_the_form_of_the_output_is_also_said_before_the_command(command: CommandLine, host: StubHost) -> None:
    serve_cluster(host)
    assert json.loads(command.run("--format", "json", "node", "list").stdout) == NODES
    assert yaml.safe_load(command.run("-f", "yaml", "task", "list").stdout) == TASKS
    assert command.run("-f", "json", "node", "list", "-o", "name").stdout.decode().split() == ["n1", "n2"]
    assert b"STATE" in command.run("-f", "table", "node", "list").stdout
    assert command.run("-f", "xml", "node", "list").returncode == 2


def test_status_shows_nodes_and_tasks_at_a_glance(command: CommandLine, host: StubHost) -> None:
    serve_cluster(host)
    text = command.run("status").stdout.decode()
    assert all(word in text for word in ("1 online", "n1", "n2", VPS, "echo"))
    shown = json.loads(command.run("status", "-o", "json").stdout)
    assert (shown["nodes"], shown["tasks"], shown["summary"]["nodes_online"]) == (NODES, TASKS, 1)


@pytest.mark.parametrize("there", [10, 11])
def test_status_says_that_there_are_more_tasks_than_it_shows(
    command: CommandLine, host: StubHost, there: int
) -> None:
    serve_cluster(host)
    records = [task_record(str(10**17 + number)) for number in range(there)]
    host.script("GET", "/api/tasks", lambda asked: Answer(records[: int(asked.query["limit"])]))
    for form in ("table", "json"):
        done = command.run("status", "-o", form)
        assert (done.returncode, b"there are more" in done.stderr) == (0, there > 10)
        assert records[9]["task_id"].encode() in done.stdout
        assert str(10**17 + 10).encode() not in done.stdout


@pytest.mark.parametrize(
    ("words", "path", "answer", "records"),
    [
        (("docker", "images"), "/api/docker/list", {"lab": ENVIRONMENT}, [ENVIRONMENT]),
        (("docker", "tar", "list"), "/api/docker/list", {"lab": ENVIRONMENT}, [ENVIRONMENT]),
        (
            ("vps", "snapshot", "list", VPS),
            f"/api/vps/snapshots/{VPS}",
            {"task_id": VPS, "count": 1, "snapshots": [SNAPSHOT]},
            [SNAPSHOT],
        ),
        (
            ("vps", "assignments", VPS),
            f"/api/vps/{VPS}/assignments",
            {"task_id": VPS, "assignments": [ASSIGNMENT]},
            [ASSIGNMENT],
        ),
    ],
)
def test_a_list_is_one_in_whichever_form_the_host_has_it(
    command: CommandLine, host: StubHost, words: tuple[str, ...], path: str, answer: object, records: object
) -> None:
    host.answer("GET", f"/api/status/{VPS}", task_record(VPS, task_type="vps"))
    for form in (answer, records):
        host.answer("GET", path, form)
        assert json.loads(command.run(*words, "-o", "json").stdout) == records


def test_version_is_a_command_too(command: CommandLine) -> None:
    assert command.run("version").stdout == command.run("--version").stdout


def test_nodes_are_listed_by_their_state(command: CommandLine, host: StubHost) -> None:
    serve_cluster(host)
    assert command.run("node", "list", "--status", "offline", "-o", "name").stdout == b"n2\n"
    assert json.loads(command.run("node", "list", "-s", "online", "-o", "json").stdout) == NODES[:1]
    assert command.run("node", "list", "-s", "nonsense").returncode == 2


def test_vps_list_all_means_all_of_them(command: CommandLine, host: StubHost) -> None:
    listed = [
        task_record(str(VPS_ID), task_type="vps")
        for VPS_ID in range(310000000000009000, 310000000000007500, -1)
    ]

    def page(request: Request) -> Answer:
        limit, offset = int(request.query["limit"]), int(request.query.get("offset", 0))
        return Answer(listed[offset : offset + limit])

    host.script("GET", "/api/vps", page)
    for word in ("-a", "--all"):
        names = command.run("vps", "list", word, "-o", "name").stdout.decode().split()
        assert names == [record["task_id"] for record in listed]
    assert len(command.run("vps", "list", "-o", "name").stdout.decode().split()) == 100
    assert command.run("vps", "list", "--all", "--active").returncode == 2


@pytest.mark.parametrize(
    ("words", "query", "status"),
    [
        (("docker", "container", "delete", "lab"), {"force": "false"}, 200),
        (("docker", "container", "delete", "lab", "-f"), {"force": "true"}, 200),
    ],
)
def test_a_container_that_runs_is_deleted_by_force(
    command: CommandLine, host: StubHost, words: tuple[str, ...], query: dict[str, str], status: int
) -> None:
    host.answer("POST", "/api/docker/host/delete/lab", {"message": "deleted"}, status)
    assert command.run(*words).returncode == 0
    assert host.requests[-1].query == query


@pytest.mark.parametrize("words", [("docker", "delete", "lab"), ("docker", "tar", "delete", "lab")])
def test_what_is_not_there_is_no_failure_by_force(
    command: CommandLine, host: StubHost, words: tuple[str, ...]
) -> None:
    host.answer("DELETE", "/api/docker/container/lab", {"detail": "there is no lab"}, 404)
    assert command.run(*words).returncode == 3
    assert command.run(*words, "-f").returncode == 0
    host.answer("DELETE", "/api/docker/container/lab", {"detail": "it is being written"}, 409)
    assert command.run(*words, "--force").returncode == 1


def test_a_quoted_command_line_goes_to_the_host_as_it_is(command: CommandLine, host: StubHost) -> None:
    host.answer("POST", "/api/submit", {"message": "accepted", "task_ids": [VPS]}, 202)
    assert command.run("task", "submit", "echo hi | wc -c").returncode == 0
    sent = host.requests[-1].json
    assert (sent["command"], sent.get("arguments", [])) == ("echo hi | wc -c", [])


def test_a_login_is_kept_for_its_host_alone(command: CommandLine, host: StubHost) -> None:
    host.answer("GET", "/api/auth/me", ME)
    host.answer("GET", "/api/nodes", NODES)
    done = command.run("auth", "login", "--token", "kr_given")
    assert (done.returncode, b"ada" in done.stdout, b"kr_given" in done.stdout + done.stderr) == (
        0,
        True,
        False,
    )
    assert kept(command) == {host.url: "kr_given"}
    assert (command.home / ".kohakuriver" / "tokens.json").stat().st_mode & 0o077 == 0
    assert command.run("node", "list").returncode == 0
    assert sent_token(host.requests[-1]) == "Bearer kr_given"
    command.run("node", "list", KOHAKURIVER_TOKEN="kr_said")
    assert sent_token(host.requests[-1]) == "Bearer kr_said"
    with_other_host = CommandLine(command.home, "http://127.0.0.2:9")
    assert with_other_host.run("node", "list").returncode == 5
    shown = command.run("auth", "status").stdout.decode()
    assert all(word in shown for word in (host.url, "ada", "operator"))
    assert command.run("auth", "logout").returncode == 0
    assert kept(command) == {}
    host.answer("GET", "/api/nodes", NODES)
    command.run("node", "list")
    assert sent_token(host.requests[-1]) is None


def test_a_token_that_the_host_refuses_is_not_kept(command: CommandLine, host: StubHost) -> None:
    host.answer("GET", "/api/auth/me", {"detail": "the token is not valid"}, 401)
    assert command.run("auth", "login", "--token", "kr_x").returncode == 4
    assert not (command.home / ".kohakuriver" / "tokens.json").exists()
    host.answer("GET", "/api/auth/me", ME | {"auth_enabled": False, "token_id": None})
    assert command.run("auth", "login", "--token", "kr_x").returncode == 1
    assert not (command.home / ".kohakuriver" / "tokens.json").exists()


def test_a_login_can_keep_a_token_of_its_own_and_end_it(command: CommandLine, host: StubHost) -> None:
    host.answer("GET", "/api/auth/me", ME)
    host.answer("POST", "/api/auth/tokens/create", TOKEN | {"token": "kr_made"})
    host.answer("DELETE", "/api/auth/tokens/t9", {"message": "the token is deleted"})
    given = subprocess.run(
        command.argv("auth", "login", "--token", "-", "--token-name", "laptop"),
        env=command.environment(),
        input=b"kr_given\n",
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert given.returncode == 0, given.stderr
    assert kept(command) == {host.url: "kr_made"}
    (made,) = host.calls("POST", "/api/auth/tokens/create")
    assert (made.json, sent_token(made)) == ({"name": "laptop"}, "Bearer kr_given")
    assert command.run("auth", "logout", "--revoke").returncode == 0
    assert sent_token(host.calls("DELETE", "/api/auth/tokens/t9")[0]) == "Bearer kr_made"
    assert kept(command) == {}


def test_tokens_that_others_can_read_are_not_used(command: CommandLine, host: StubHost) -> None:
    file = command.home / ".kohakuriver" / "tokens.json"
    file.parent.mkdir()
    file.write_text(json.dumps({host.url: "kr_open"}))
    file.chmod(0o644)
    done = command.run("node", "list")
    assert (done.returncode, b"chmod 600" in done.stderr, host.requests) == (2, True, [])


def test_tokens_are_made_listed_and_ended(command: CommandLine, host: StubHost) -> None:
    host.answer("GET", "/api/auth/tokens", [TOKEN | {"last_used": None}])
    host.answer("POST", "/api/auth/tokens/create", TOKEN | {"token": "kr_made"})
    host.answer("DELETE", "/api/auth/tokens/7", {"message": "the token is deleted"})
    listed = command.run("auth", "token", "list")
    assert all(word in listed.stdout for word in (b"7", b"ci", b"never"))
    made = command.run("auth", "token", "create", "ci", "--role", "user")
    assert made.stdout == b"kr_made\n"
    assert host.requests[-1].json == {"name": "ci", "role": "user"}
    assert command.run("auth", "token", "revoke", "7").returncode == 0
    assert len(host.calls("DELETE", "/api/auth/tokens/7")) == 1


def test_completion_is_written_to_a_file(command: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "completion"
    assert command.run("config", "completion", "bash", "--output", str(file)).stdout == b""
    assert file.read_bytes() == command.run("config", "completion", "bash").stdout


def test_both_configurations_are_written_into_a_folder(command: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    assert command.run("init", "config", "-g", "-o", str(folder)).returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == ["host_config.py", "runner_config.py"]
    assert command.run("init", "config", "--generate", "-o", str(folder)).returncode == 1
    assert command.run("init", "config", "-g", "--output", "x", "--output-dir", "y").returncode == 2


def test_units_are_made_as_they_were_asked_for(command: CommandLine, tmp_path: Path) -> None:
    config = tmp_path / "own host.py"
    config.touch()
    done = subprocess.run(
        command.argv(
            *("init", "service", "--all", "--host-config", str(config), "--working-dir", str(tmp_path)),
            *("--python-path", sys.executable, "--capture-env", "--no-install"),
        ),
        env=command.environment(PATH="/a b:/usr/bin:/100%"),
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    host_unit = (tmp_path / "kohakuriver-host.service").read_text().splitlines()
    assert f'ExecStart={sys.executable} -m kohakuriver.cli.host --config "{config}"' in host_unit
    assert f"WorkingDirectory={tmp_path}" in host_unit
    assert 'Environment="PATH=/a b:/usr/bin:/100%%"' in host_unit
    runner_unit = (tmp_path / "kohakuriver-runner.service").read_text()
    assert "-m kohakuriver.cli.runner\n" in runner_unit


@pytest.mark.parametrize("name", ["host", "runner"])
def test_the_daemons_are_modules_too(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"kohakuriver.cli.{name}", "--help"],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, b"--config" in done.stdout) == (0, True)
