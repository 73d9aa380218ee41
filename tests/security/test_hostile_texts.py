"""Other people's texts in everything that the command line prints: none of it may steer a terminal.

Every form of output and every sentence is run as a process against a host whose answers hold control
characters and marks that turn the direction of writing. What a program reads is exact all the same. What a
task itself writes is passed on byte by byte, and is not looked at here.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.cli.console.output import json_text, yaml_text
from kohakuriver.cli.console.plain_text import neutralised_lines
from support.clients.command_line import CommandLine
from support.clients.stub_host import StubHost, stub_host, task_record

TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
HOSTILE = f"x{TURNS}\x1b[2J\x1b]0;owned\x07\x9b31m\r\n\x7f\x85\u2028\u2029\ufeffz"
TASK = "310000000000004242"
RECORD = task_record(
    TASK,
    name=HOSTILE,
    owner=HOSTILE,
    command=HOSTILE,
    arguments=[HOSTILE, HOSTILE],
    env_vars={HOSTILE: HOSTILE},
    target=HOSTILE,
    container_name=HOSTILE,
    registry_image=HOSTILE,
    working_dir=HOSTILE,
    additional_mounts=[HOSTILE],
    assigned_node=HOSTILE,
    error_message=HOSTILE,
    decided_by=HOSTILE,
    stdout_path=HOSTILE,
    field_of_the_future={HOSTILE: [HOSTILE]},
)
WAITING = {
    **RECORD,
    "status": "pending",
    "assigned_node": None,
    "pending_reasons": [{"node": HOSTILE, "reason": HOSTILE}],
}
NODE = {
    "hostname": HOSTILE,
    "status": "online",
    "url": HOSTILE,
    "total_cores": 2,
    "runner_version": HOSTILE,
    "faults": [HOSTILE],
    "shared_storage": HOSTILE,
    "gpu_info": [],
}
VPS_RECORD = {**RECORD, "task_type": "vps", "status": "running", "session_notice": HOSTILE, "command": ""}
TARBALL = {"timestamp": 1700000000, "tarball": HOSTILE, "size_bytes": 1 << 20}
ENVIRONMENT = {
    "name": HOSTILE,
    "latest_timestamp": 1700000000,
    "latest_tarball": HOSTILE,
    "size_bytes": 1 << 20,
    "all_versions": [TARBALL],
}
CONTAINER = {"name": HOSTILE, "container": HOSTILE, "image": HOSTILE, "status": HOSTILE}
TOKEN = {"token_id": HOSTILE, "created_by": HOSTILE, "expires_at": "2026-11-30T00:00:00Z"}
SNAPSHOT = {"timestamp": 1700000000, "size_bytes": 1, "message": HOSTILE, "image": HOSTILE, "node": HOSTILE}
ASSIGNMENT = {"username": HOSTILE, "assigned_by": HOSTILE, "assigned_at": "2026-11-20T10:00:00Z"}
HEALTH = {"nodes": [[{"hostname": HOSTILE, "cpu_percent": 1}]], "aggregate": [{"cpu_percent": 1}]}

SHOWN: list[tuple[tuple[str, ...], str, Any]] = [
    (("task", "list"), "/api/tasks", [RECORD]),
    (("task", "status", TASK), f"/api/status/{TASK}", RECORD),
    (("task", "status", TASK), f"/api/status/{TASK}", WAITING),
    (("node", "list"), "/api/nodes", [NODE]),
    (("node", "health"), "/api/health", HEALTH),
    (("node", "join-token", "list"), "/api/nodes/join-tokens", [TOKEN]),
    (("docker", "images"), "/api/docker/list", [ENVIRONMENT]),
    (("docker", "tar", "list"), "/api/docker/list", [ENVIRONMENT]),
    (("docker", "container", "list"), "/api/docker/host/containers", [CONTAINER]),
    (("vps", "list"), "/api/vps", [VPS_RECORD]),
    (("vps", "assignments", TASK), f"/api/vps/{TASK}/assignments", [ASSIGNMENT]),
]
SAID: list[tuple[tuple[str, ...], str, str]] = [
    (("task", "kill", TASK), "POST", f"/api/kill/{TASK}"),
    (("task", "pause", TASK), "POST", f"/api/command/{TASK}/pause"),
    (("task", "approve", TASK), "POST", f"/api/approve/{TASK}"),
    (("node", "undrain", "n1"), "POST", "/api/nodes/n1/undrain"),
    (("node", "leftovers", "n1", "--end", "n0"), "POST", "/api/nodes/n1/leftovers"),
    (("vps", "stop", TASK), "POST", f"/api/vps/stop/{TASK}"),
    (("vps", "assign", TASK, "ben"), "POST", f"/api/vps/{TASK}/assignments"),
    (("docker", "container", "stop", "lab"), "POST", "/api/docker/host/stop/lab"),
]


@pytest.fixture
def host() -> Iterator[StubHost]:
    with stub_host() as host:
        host.answer("GET", "/api/tasks/resolve", {"task_id": TASK})
        host.answer("GET", f"/api/status/{TASK}", RECORD)
        yield host


@pytest.fixture
def command(tmp_path: Path, host: StubHost) -> CommandLine:
    return CommandLine(tmp_path, host.url)


def check(raw: bytes) -> str:
    """Nothing but printable characters in lines."""
    text = raw.decode()
    steering = {char for char in text.replace("\n", "") if not char.isprintable()}
    assert not steering, [hex(ord(char)) for char in steering]
    return text


@pytest.mark.parametrize(("arguments", "path", "answer"), SHOWN, ids=[" ".join(one[0][:2]) for one in SHOWN])
@pytest.mark.parametrize("form", ["table", "json", "yaml", "name"])
def test_no_form_of_output_steers_a_terminal(
    command: CommandLine, host: StubHost, arguments: tuple[str, ...], path: str, answer: Any, form: str
) -> None:
    if arguments[0] == "vps":
        host.answer("GET", f"/api/status/{TASK}", VPS_RECORD)
    host.answer("GET", path, answer)
    done = command.run(*arguments, "-o", form)
    assert done.returncode == 0, done.stderr
    text = check(done.stdout)
    check(done.stderr)
    assert text.strip()
    if form in ("json", "yaml"):
        assert (json.loads if form == "json" else yaml.safe_load)(text) == answer


@pytest.mark.parametrize(("arguments", "method", "path"), SAID, ids=[" ".join(one[0][:3]) for one in SAID])
@pytest.mark.parametrize("status", [200, 409, 503])
def test_no_message_and_no_refusal_steers_a_terminal(
    command: CommandLine, host: StubHost, arguments: tuple[str, ...], method: str, path: str, status: int
) -> None:
    body = {"message": HOSTILE} if status == 200 else {"detail": HOSTILE, "field": HOSTILE}
    host.answer(method, path, body, status)
    done = command.run(*arguments)
    assert check(done.stdout) + check(done.stderr)


def test_a_wrong_use_that_names_somebody_elses_text_steers_nothing(command: CommandLine) -> None:
    said = [
        command.run("task", "list", "-s", HOSTILE),
        command.run("run", "--memory", HOSTILE, "true"),
        command.run("task", "status", HOSTILE),
        command.run(HOSTILE),
    ]
    assert all(check(done.stdout) + check(done.stderr) for done in said)


any_text = st.text(st.characters(codec=None, categories=None), max_size=20)


@given(st.recursive(any_text, lambda inner: st.lists(inner) | st.dictionaries(any_text, inner), max_leaves=8))
def test_any_text_is_exact_for_programs_and_harmless_for_people(raw: Any) -> None:
    for text, read in ((json_text(raw), json.loads), (yaml_text(raw), yaml.safe_load)):
        assert text.replace("\n", "").isprintable()
        assert read(text) == raw


@given(any_text)
def test_lines_stay_lines(text: str) -> None:
    shown = neutralised_lines(text)
    assert shown.replace("\n", "").isprintable()
    assert shown.count("\n") == text.count("\n")
