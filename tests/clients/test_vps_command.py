"""`vps …` as a process: what is sent, what is waited for, and how failures are told."""

import json
import signal
import subprocess

import pytest
import yaml

from support.clients.answers import SNAPSHOT, TIME, VPS, serve, vps
from support.clients.command_line import CommandLine
from support.clients.pty_session import pty_session
from support.clients.stub_host import Answer, Request, StubHost, task_record

COMMAND = "310000000000001111"
ASSIGNMENT = {"username": "ben", "assigned_by": "admin", "assigned_at": "2026-11-20T10:00:00Z"}
NOT_STOPPED = "it was not stopped, because no snapshot could be made: the disk is full"


@pytest.mark.parametrize(
    ("arguments", "path", "answer", "names"),
    [
        (("vps", "list"), "/api/vps", [vps()], [VPS]),
        (("vps", "list", "--active"), "/api/vps/status", [vps()], [VPS]),
        (("vps", "status", VPS), f"/api/status/{VPS}", vps(), [VPS]),
        (("vps", "snapshot", "list", VPS), f"/api/vps/snapshots/{VPS}", [SNAPSHOT], [str(TIME)]),
        (("vps", "assignments", VPS), f"/api/vps/{VPS}/assignments", [ASSIGNMENT], ["ben"]),
    ],
)
def test_machine_output_is_the_answer_of_the_api_and_nothing_else(
    command: CommandLine,
    host: StubHost,
    arguments: tuple[str, ...],
    path: str,
    answer: object,
    names: list[str],
) -> None:
    serve(host, vps())
    host.answer("GET", path, answer)
    assert json.loads(command.run(*arguments, "-o", "json").stdout) == answer
    assert yaml.safe_load(command.run(*arguments, "-o", "yaml").stdout) == answer
    assert command.run(*arguments, "-o", "name").stdout.decode().split() == names
    table = command.run(*arguments)
    assert (table.returncode, table.stderr) == (0, b"")
    assert names[0] in table.stdout.decode()


def test_a_status_tells_where_it_is_and_what_went_wrong(command: CommandLine, host: StubHost) -> None:
    serve(host, vps(notice=NOT_STOPPED))
    shown = command.run("vps", "status", "lab").stdout.decode()
    for text in ("lab", "running", "n1", "172.30.0.9", NOT_STOPPED, "with your public keys", "256M"):
        assert text in shown


def test_a_name_is_that_of_a_vps(command: CommandLine, host: StubHost) -> None:
    serve(host, vps())
    assert command.run("vps", "status", "lab").returncode == 0
    (asked,) = host.calls("GET", "/api/tasks/resolve")
    assert asked.query == {"ref": "lab", "task_type": "vps"}


def test_a_stop_returns_when_it_is_stopped(command: CommandLine, host: StubHost) -> None:
    serve(host, vps(), vps(), vps(), vps(status="stopped"))
    host.answer("POST", f"/api/vps/stop/{VPS}", {"message": "it is being stopped"}, 202)
    done = command.run("vps", "stop", "lab")
    assert (done.returncode, done.stdout.decode()) == (0, f"VPS {VPS} is stopped\n")
    assert len(host.calls("GET", f"/api/status/{VPS}")) == 4


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_what_could_not_be_stopped_is_told_and_is_1(command: CommandLine, host: StubHost, verb: str) -> None:
    serve(host, vps(), vps(), vps(notice=NOT_STOPPED))
    host.answer("POST", f"/api/vps/{verb}/{VPS}", {"message": "it is being stopped"}, 202)
    done = command.run("vps", verb, "lab")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"Error: VPS lab goes on: {NOT_STOPPED}\n"


def test_a_stop_that_somebody_turned_into_a_kill_is_1(command: CommandLine, host: StubHost) -> None:
    serve(host, vps(), vps(), vps(status="killed"))
    host.answer("POST", f"/api/vps/stop/{VPS}", {"message": ""}, 202)
    done = command.run("vps", "stop", "lab")
    assert (done.returncode, done.stderr) == (1, b"Error: VPS lab is killed\n")


def test_a_restart_returns_when_the_next_run_is_ready(command: CommandLine, host: StubHost) -> None:
    # Running as before is not yet the answer, and neither is a stop that is to be followed by a start.
    full = vps(status="stopped", restart_requested=True, notice="4 cores wanted, 0 of 2 free")
    next_run = vps(attempt=2, address="172.30.0.10")
    serve(host, vps(), vps(), full, vps(status="assigning", attempt=2), next_run)
    host.answer("POST", f"/api/vps/restart/{VPS}", {"message": "it is being started"}, 202)
    done = command.run("vps", "restart", "lab")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"VPS {VPS} runs on n1 at 172.30.0.10\n"


def test_a_restart_that_is_refused_after_the_stop_is_1(command: CommandLine, host: StubHost) -> None:
    refused = vps(status="stopped", notice="it was stopped and not started again: node n1 is gone")
    serve(host, vps(), vps(), refused)
    host.answer("POST", f"/api/vps/restart/{VPS}", {"message": ""}, 202)
    done = command.run("vps", "restart", "lab")
    assert done.returncode == 1
    assert "node n1 is gone" in done.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("stop", VPS), f"/api/vps/stop/{VPS}"),
        (("restart", VPS), f"/api/vps/restart/{VPS}"),
        (("snapshot", "restore", VPS, str(TIME)), f"/api/vps/snapshots/{VPS}/{TIME}/restore"),
    ],
)
def test_no_wait_leaves_it_to_itself(
    command: CommandLine, host: StubHost, arguments: tuple[str, ...], path: str
) -> None:
    serve(host, vps())
    host.answer("POST", path, {"message": "it is on its way"}, 202)
    done = command.run("vps", *arguments, "--no-wait")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"it is on its way\n", b"")
    assert len(host.calls("GET", f"/api/status/{VPS}")) == 1


@pytest.mark.parametrize(
    ("arguments", "method", "path", "query"),
    [
        (("kill", VPS), "POST", f"/api/kill/{VPS}", {}),
        (("pause", VPS), "POST", f"/api/command/{VPS}/pause", {}),
        (("resume", VPS), "POST", f"/api/command/{VPS}/resume", {}),
        (("assign", VPS, "ben"), "POST", f"/api/vps/{VPS}/assignments", {}),
        (("unassign", VPS, "ben"), "DELETE", f"/api/vps/{VPS}/assignments", {"username": "ben"}),
        (("snapshot", "delete", VPS, str(TIME)), "DELETE", f"/api/vps/snapshots/{VPS}/{TIME}", {}),
        (("snapshot", "delete", VPS, "--all"), "DELETE", f"/api/vps/snapshots/{VPS}", {}),
    ],
)
def test_a_command_makes_its_call_on_a_vps_and_on_nothing_else(
    command: CommandLine,
    host: StubHost,
    arguments: tuple[str, ...],
    method: str,
    path: str,
    query: dict[str, str],
) -> None:
    serve(host, vps())
    host.answer(method, path, {"message": "it is done"})
    done = command.run("vps", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"it is done\n", b"")
    assert [request.query for request in host.calls(method, path)] == [query]
    serve(host, task_record(VPS, status="running"))
    done = command.run("vps", *arguments)
    assert done.returncode == 3
    assert b"no VPS" in done.stderr
    assert len(host.calls(method, path)) == 1


def test_an_assignment_names_the_user(command: CommandLine, host: StubHost) -> None:
    serve(host, vps())
    host.answer("POST", f"/api/vps/{VPS}/assignments", {"message": "ben may use it"})
    command.run("vps", "assign", "lab", "ben")
    assert host.requests[-1].json == {"username": "ben"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("kohakuriver vps stop l", ["lab"]),
        ("kohakuriver vps connect t", ["train"]),
        ("kohakuriver connect l", ["lab"]),
        ("kohakuriver exec -i l", ["lab"]),
        ("kohakuriver ssh l", ["lab"]),
    ],
)
def test_names_of_vps_are_completed(
    command: CommandLine, host: StubHost, words: str, expected: list[str]
) -> None:
    host.answer("GET", "/api/vps", [vps(), vps(task_id=COMMAND, name="other")])
    host.answer("GET", "/api/vps/status", [vps()])
    host.answer("GET", "/api/tasks", [task_record(COMMAND, name="train")])
    assert command.completions(words) == expected


def test_a_watched_list_follows_the_vps(command: CommandLine, host: StubHost) -> None:
    host.answer("GET", "/api/vps/status", [vps()])
    with subprocess.Popen(
        command.argv("vps", "list", "--active", "--watch", "0.1", "-o", "json"),
        env=command.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline()) for _ in range(2)] == [[vps()]] * 2
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_a_refusal_of_the_host_has_its_exit_status(command: CommandLine, host: StubHost) -> None:
    def denied(request: Request) -> Answer:
        return Answer({"detail": "only operators may create VPSs"}, 403)

    host.script("POST", "/api/vps/create", denied)
    done = command.run("vps", "create", "lab")
    assert (done.returncode, done.stderr) == (4, b"Error: only operators may create VPSs\n")


def test_a_deletion_asks_first_and_deletes_nothing_where_nobody_can_be_asked(
    command: CommandLine, host: StubHost
) -> None:
    serve(host, vps(status="stopped"))
    host.answer("DELETE", f"/api/vps/{VPS}", {"message": f"VPS {VPS} is deleted"})
    done = command.run("vps", "delete", "lab")
    assert (done.returncode, b"--yes" in done.stderr) == (2, True)
    assert host.calls("DELETE", f"/api/vps/{VPS}") == []
    with pty_session(command.argv("vps", "delete", "lab"), command.environment()) as terminal:
        terminal.wait_for("with all its snapshots, for good?")
        terminal.send("n\n")
        assert terminal.wait() == 1
    assert host.calls("DELETE", f"/api/vps/{VPS}") == []
    with pty_session(command.argv("vps", "delete", "lab"), command.environment()) as terminal:
        terminal.wait_for("for good?")
        terminal.send("y\n")
        assert terminal.wait() == 0
    done = command.run("vps", "delete", "lab", "-y")
    assert (done.returncode, done.stdout) == (0, f"VPS {VPS} is deleted\n".encode())
    assert len(host.calls("DELETE", f"/api/vps/{VPS}")) == 2
