"""`node`: drains, leftovers, join tokens and what a status tells."""

import json
from itertools import chain, repeat

from support.clients.answers import NODE, TASK, TOKEN
from support.clients.command_line import CommandLine
from support.clients.stub_host import Answer, StubHost, task_record


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


def test_a_node_with_more_tasks_than_are_listed_says_how_many(command: CommandLine, host: StubHost) -> None:
    host.answer("GET", "/api/nodes", [{**NODE, "draining": True, "tasks": 5}])
    running = task_record(TASK, status="running", exit_code=None, assigned_node="n1")
    host.script(
        "GET", "/api/tasks", lambda asked: Answer([running] if asked.query["status"] == "running" else [])
    )
    assert b"4 more tasks and VPSs" in command.run("node", "status", "n1").stdout


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
