"""`vps …` as a process: what is sent, what is waited for, where keys go, and how failures are told."""

import json
import signal
import stat
import subprocess
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.clients.command_line import CommandLine
from support.clients.pty_session import pty_session
from support.clients.stub_host import Answer, Request, StubHost, task_record

VPS = "310000000000004242"
COMMAND = "310000000000001111"
TIME = 1764000000
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMbhlrtnfwdJuCYfl1gX3ZyPlAzqNo1QTDsdTcaibhIj"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIS5NytO4dCIA9JYxNbaGO9uoPwi1aPbQ/NQV8yIgDxk"
PRIVATE_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\ncanary\n-----END OPENSSH PRIVATE KEY-----\n"
SNAPSHOT = {"timestamp": TIME, "created_at": "2025-11-24T16:00:00Z", "message": "base", "size_bytes": 1 << 20}
ASSIGNMENT = {"username": "ben", "assigned_by": "admin", "assigned_at": "2026-11-20T10:00:00Z"}
NOT_STOPPED = "it was not stopped, because no snapshot could be made: the disk is full"


def vps(**fields: Any) -> dict[str, Any]:
    """A VPS as the host writes it."""
    own: dict[str, Any] = {
        "task_type": "vps",
        "status": "running",
        "name": "lab",
        "command": "",
        "arguments": [],
        "exit_code": None,
        "completed_at": None,
        "vps_backend": "docker",
        "ssh_key_mode": "upload",
        "ssh_port": 22,
        "address": "172.30.0.9",
        "notice": None,
        "host_public_key": KEY,
        "restart_requested": False,
    }
    return task_record(VPS, **own) | fields


def serve(host: StubHost, *records: dict[str, Any]) -> None:
    """Serve one VPS, found by its name as well: these records one after the other, the last for ever."""
    answers = chain(map(Answer, records), repeat(Answer(records[-1])))
    host.script("GET", f"/api/status/{VPS}", lambda _: next(answers))
    host.answer("GET", "/api/tasks/resolve", {"task_id": VPS})


def serve_creation(host: StubHost, *records: dict[str, Any], **answer: Any) -> None:
    serve(host, *(records or (vps(),)))
    created = {"task_id": VPS, "name": "lab", "ssh_port": 22, "assigned_node": None, "message": "it starts"}
    host.answer("POST", "/api/vps/create", created | answer)


def serve_generated(host: StubHost, *records: dict[str, Any]) -> None:
    serve_creation(host, *records, ssh_private_key=PRIVATE_KEY, ssh_public_key=KEY)


def sent(host: StubHost) -> Any:
    (request,) = host.calls("POST", "/api/vps/create")
    return request.json


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


def test_a_creation_carries_every_option(command: CommandLine, host: StubHost) -> None:
    serve_creation(host)
    done = command.run(
        *("vps", "create", "lab", "-t", "n1:0::0,1", "-c", "2", "-m", "1.5G", "--image", "debian:12"),
        *("--env", "A=b=c", "-e", "EMPTY=", "--privileged", "--mount", "/a:/b:ro", "--cap-add", "NET_RAW"),
        *("--shm-size", "1G", "--ulimit", "nofile=9", "--ipc", "none", "--device", "/dev/fuse"),
        *("--pull", "always"),
        *("--public-key-string", f"{KEY} ann", "--public-key-string", OTHER_KEY),
        *("-b", "qemu", "--vm-image", "noble", "--vm-disk", "20G", "--vm-memory", "1G"),
    )
    assert done.returncode == 0, done.stderr
    assert sent(host) == {
        "name": "lab",
        "target_hostname": "n1",
        "target_numa_node_id": 0,
        "required_gpus": [0, 1],
        "required_cores": 2,
        "required_memory_bytes": 3 << 29,
        "registry_image": "debian:12",
        "env_vars": {"A": "b=c", "EMPTY": ""},
        "privileged": True,
        "capabilities": ["NET_RAW"],
        "additional_mounts": ["/a:/b:ro"],
        "shm_size_bytes": 1 << 30,
        "ulimits": ["nofile=9:9"],
        "ipc": "none",
        "devices": ["/dev/fuse:/dev/fuse:rwm"],
        "pull": "always",
        "ssh_key_mode": "upload",
        "ssh_public_keys": [f"{KEY} ann", OTHER_KEY],
        "vps_backend": "qemu",
        "vm_image": "noble",
        "vm_disk_size": "20G",
        "memory_mb": 1024,
    }


def test_a_creation_waits_until_it_runs_and_says_how_to_get_in(command: CommandLine, host: StubHost) -> None:
    waiting = vps(status="pending", attempt=0, assigned_node=None, address=None)
    serve_creation(host, waiting, vps(status="assigning", address=None), vps())
    done = command.run("vps", "create", "lab", "--no-ssh-key")
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode()
    for text in (VPS, "running", "n1", "172.30.0.9", "kohakuriver connect lab", "kohakuriver ssh lab"):
        assert text in shown
    assert sent(host) == {"name": "lab", "required_cores": 1, "ssh_key_mode": "none"}


def test_without_a_word_of_ssh_there_is_none(command: CommandLine, host: StubHost) -> None:
    serve_creation(host, ssh_port=None)
    own = command.home / ".ssh" / "id_ed25519.pub"
    own.parent.mkdir()
    own.write_text(KEY)
    done = command.run("vps", "create")
    assert sent(host) == {"required_cores": 1, "ssh_key_mode": "disabled"}
    assert b"kohakuriver ssh" not in done.stdout
    # One without a name is reached by its id.
    assert f"kohakuriver connect {VPS}".encode() in done.stdout


def test_no_wait_returns_at_once_with_the_answer(command: CommandLine, host: StubHost) -> None:
    serve_creation(host, vps(status="pending", attempt=0))
    done = command.run("vps", "create", "lab", "--no-wait", "-o", "json")
    assert json.loads(done.stdout)["message"] == "it starts"
    assert host.calls("GET", f"/api/status/{VPS}") == []


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (vps(status="failed", error_message="its image has no sshd"), "failed: its image has no sshd"),
        (vps(status="killed"), "is killed"),
        (vps(status="stopped", error_message="its first process ended"), "its first process ended"),
    ],
)
def test_a_vps_that_does_not_come_to_run_is_1_with_the_reason(
    command: CommandLine, host: StubHost, record: dict[str, Any], reason: str
) -> None:
    serve_creation(host, vps(status="assigning"), record)
    done = command.run("vps", "create", "lab", "-o", "name")
    assert (done.returncode, done.stdout.decode()) == (1, f"{VPS}\n")
    assert reason in done.stderr.decode()


def test_a_host_that_restarts_while_it_is_waited_for_is_borne_with(
    command: CommandLine, host: StubHost
) -> None:
    serve_creation(host)
    answers = chain([Answer({"detail": "starting"}, 503)], repeat(Answer(vps())))
    host.script("GET", f"/api/status/{VPS}", lambda _: next(answers))
    assert command.run("vps", "create", "lab").returncode == 0


def test_ctrl_c_ends_the_waiting_and_not_the_vps(command: CommandLine, host: StubHost) -> None:
    serve_generated(host, vps(status="assigning"))
    argv = command.argv("vps", "create", "lab", "--gen-ssh-key")
    with pty_session(argv, command.environment()) as terminal:
        terminal.wait_for("starts on n1")
        terminal.send("\x03")
        assert terminal.wait() == 130
    assert f"kohakuriver vps status {VPS}" in terminal.text
    assert (command.home / ".kohakuriver" / "keys" / "lab").read_text() == PRIVATE_KEY
    assert host.calls("POST", f"/api/kill/{VPS}") == []


@pytest.mark.parametrize("output", ["table", "json", "yaml", "name"])
def test_a_generated_key_is_in_its_file_alone_which_its_owner_alone_can_read(
    command: CommandLine, host: StubHost, output: str
) -> None:
    serve_generated(host)
    done = command.run("vps", "create", "lab", "--gen-ssh-key", "-o", output)
    assert done.returncode == 0, done.stderr
    path = command.home / ".kohakuriver" / "keys" / "lab"
    assert path.read_text() == PRIVATE_KEY
    assert [stat.S_IMODE(place.stat().st_mode) for place in (path, path.parent)] == [0o600, 0o700]
    assert list(path.parent.iterdir()) == [path]
    assert b"canary" not in done.stdout + done.stderr
    assert (str(path) in done.stdout.decode()) is (output != "name")
    assert sent(host)["ssh_key_mode"] == "generate"


def test_the_key_of_a_vps_without_a_name_is_called_by_its_id(command: CommandLine, host: StubHost) -> None:
    serve_generated(host, vps(name=None))
    command.run("vps", "create", "--gen-ssh-key")
    (path,) = (command.home / ".kohakuriver" / "keys").iterdir()
    assert (path.name, path.read_text()) == (VPS, PRIVATE_KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_file_that_is_there_is_kept_and_no_vps_is_made(
    command: CommandLine, host: StubHost, tmp_path: Path
) -> None:
    serve_generated(host)
    path = tmp_path / "key"
    path.write_text("the key of another")
    wanted = ("vps", "create", "lab", "--gen-ssh-key", "--key-out-file", str(path))
    done = command.run(*wanted)
    assert done.returncode == 1
    assert b"--force" in done.stderr
    assert path.read_text() == "the key of another"
    assert host.requests == []
    assert command.run(*wanted, "--force").returncode == 0
    assert path.read_text() == PRIVATE_KEY
    assert list(tmp_path.glob(".key-*")) == []


@pytest.mark.parametrize("more", [(), ("--force",)])
def test_a_creation_that_is_refused_leaves_no_key_file(
    command: CommandLine, host: StubHost, tmp_path: Path, more: tuple[str, ...]
) -> None:
    host.answer("POST", "/api/vps/create", {"detail": "there is a VPS named lab already"}, 409)
    out = tmp_path / "keys" / "key"
    out.parent.mkdir()
    done = command.run("vps", "create", "lab", "--gen-ssh-key", "--key-out-file", str(out), *more)
    assert (done.returncode, done.stderr) == (1, b"Error: there is a VPS named lab already\n")
    assert list(out.parent.iterdir()) == []


def test_a_key_that_could_not_be_written_is_found_before_a_vps_is_made(
    command: CommandLine, host: StubHost, tmp_path: Path
) -> None:
    serve_generated(host)
    out = tmp_path / "nowhere" / "key"
    done = command.run("vps", "create", "lab", "--gen-ssh-key", "--key-out-file", str(out))
    assert done.returncode == 2
    assert str(out) in done.stderr.decode()
    assert host.requests == []


@pytest.mark.parametrize("output", ["table", "name"])
def test_a_key_on_standard_output_is_alone_there(command: CommandLine, host: StubHost, output: str) -> None:
    serve_generated(host)
    done = command.run("vps", "create", "lab", "--gen-ssh-key", "--key-out-file", "-", "-o", output)
    assert done.stdout.decode() == PRIVATE_KEY
    assert VPS in done.stderr.decode()
    assert not (command.home / ".kohakuriver").exists()


def test_a_key_on_standard_output_is_a_part_of_the_json(command: CommandLine, host: StubHost) -> None:
    serve_generated(host)
    done = command.run("vps", "create", "lab", "--gen-ssh-key", "--key-out-file", "-", "-o", "json")
    assert json.loads(done.stdout)["ssh_private_key"] == PRIVATE_KEY


@pytest.mark.parametrize(
    ("there", "used"),
    [
        (("id_rsa.pub", "id_ed25519.pub", "id_ecdsa.pub"), "id_ed25519.pub"),
        (("id_rsa.pub", "id_ecdsa.pub"), "id_ecdsa.pub"),
        (("id_rsa.pub",), "id_rsa.pub"),
    ],
)
def test_ssh_takes_the_users_own_key(
    command: CommandLine, host: StubHost, there: tuple[str, ...], used: str
) -> None:
    serve_creation(host)
    folder = command.home / ".ssh"
    folder.mkdir()
    for name in there:
        (folder / name).write_text(f"# mine\n\n{KEY} {name}\n")
    command.run("vps", "create", "--ssh")
    assert sent(host)["ssh_key_mode"] == "upload"
    assert sent(host)["ssh_public_keys"] == [f"{KEY} {used}"]


def test_ssh_makes_a_key_for_who_has_none(command: CommandLine, host: StubHost) -> None:
    serve_generated(host)
    command.run("vps", "create", "lab", "--ssh")
    assert sent(host)["ssh_key_mode"] == "generate"
    assert (command.home / ".kohakuriver" / "keys" / "lab").read_text() == PRIVATE_KEY


def test_public_keys_of_several_files_are_sent_each_once(
    command: CommandLine, host: StubHost, tmp_path: Path
) -> None:
    serve_creation(host)
    first, second = tmp_path / "first.pub", tmp_path / "second.pub"
    first.write_text(f"{KEY} ann\n{OTHER_KEY}\n")
    second.write_text(f"{OTHER_KEY}\r\n")
    given = ("--public-key-file", str(first), "--public-key-file", str(second))
    command.run("vps", "create", *given, "--public-key-string", f"{KEY} ann")
    assert sent(host)["ssh_public_keys"] == [f"{KEY} ann", OTHER_KEY]


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "Bad Name"),
        ("create", "12345"),
        ("create", "-t", "bad host"),
        ("create", "--container", "a", "--image", "b"),
        ("create", "--gen-ssh-key", "--no-ssh-key"),
        ("create", "--gen-ssh-key", "--public-key-string", KEY),
        ("create", "--no-ssh-key", "--public-key-string", KEY),
        ("create", "--public-key-string", "no key"),
        ("create", "--public-key-string", f'command="rm" {KEY}'),
        ("create", "--public-key-string", f"{KEY} a\n{OTHER_KEY}"),
        ("create", "--public-key-file", "/nowhere"),
        ("create", "--public-key-file", "/etc/passwd"),
        ("create", "--public-key-file", "/dev/null"),
        ("create", "--key-out-file", "x"),
        ("create", "--no-ssh-key", "--key-out-file", "x"),
        ("create", "--public-key-string", KEY, "--force"),
        ("create", "--backend", "vmware"),
        ("create", "--vm-memory", "much"),
        ("list", "--limit", "0"),
        ("stop",),
        ("snapshot", "delete", VPS),
        ("snapshot", "delete", VPS, str(TIME), "--all"),
        ("snapshot", "restore", VPS),
        ("snapshot", "restore", VPS, "yesterday"),
        ("assign", VPS),
    ],
)
def test_wrong_use_is_2_and_reaches_no_host(
    command: CommandLine, host: StubHost, arguments: tuple[str, ...]
) -> None:
    done = command.run("vps", *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Error: " in done.stderr
    assert b"Traceback" not in done.stderr
    assert host.requests == []


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


def test_a_snapshot_is_made_with_its_message_and_shown(command: CommandLine, host: StubHost) -> None:
    serve(host, vps())
    host.answer("POST", f"/api/vps/snapshots/{VPS}", SNAPSHOT)
    done = command.run("vps", "snapshot", "create", "lab", "-m", "base")
    assert host.requests[-1].json == {"message": "base"}
    for text in (str(TIME), "1M", "base", "2025-11-24 16:00:00 UTC"):
        assert text in done.stdout.decode()


def serve_restore(host: StubHost, time: int) -> str:
    path = f"/api/vps/snapshots/{VPS}/{time}/restore"
    stopped = vps(status="stopped")
    serve(host, stopped, vps(status="assigning", attempt=2), vps(attempt=2, assigned_node="n2"))
    host.answer("POST", path, {"message": "it starts"}, 202)
    return path


def test_a_restore_takes_the_snapshot_that_was_named(command: CommandLine, host: StubHost) -> None:
    path = serve_restore(host, TIME)
    done = command.run("vps", "snapshot", "restore", "lab", str(TIME))
    assert done.stdout.decode() == f"VPS {VPS} runs on n2 at 172.30.0.9\n"
    assert host.calls("POST", path)[0].json == {}


def test_a_restore_takes_the_newest_snapshot_and_names_the_node(command: CommandLine, host: StubHost) -> None:
    path = serve_restore(host, TIME)
    older = {**SNAPSHOT, "timestamp": TIME - 60}
    host.answer("GET", f"/api/vps/snapshots/{VPS}", [SNAPSHOT, older])
    done = command.run("vps", "restore", "lab", "--to", "n2")
    assert done.returncode == 0, done.stderr
    assert host.calls("POST", path)[0].json == {"target_hostname": "n2"}


def test_a_restore_without_any_snapshot_is_not_found(command: CommandLine, host: StubHost) -> None:
    serve(host, vps(status="stopped"))
    host.answer("GET", f"/api/vps/snapshots/{VPS}", [])
    done = command.run("vps", "restore", "lab")
    assert done.returncode == 3
    assert b"vps restart" in done.stderr


def test_a_restore_that_the_host_refuses_is_told(command: CommandLine, host: StubHost) -> None:
    serve(host, vps())
    path = f"/api/vps/snapshots/{VPS}/{TIME}/restore"
    host.answer("POST", path, {"detail": "stop it before it is moved"}, 409)
    done = command.run("vps", "restore", "lab", str(TIME), "--to", "n2")
    assert (done.returncode, done.stderr) == (1, b"Error: stop it before it is moved\n")


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
    at = str(len(words.split(" ")) - 1)
    done = command.run(_KOHAKURIVER_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=at)
    assert [line.split(",")[1] for line in done.stdout.decode().split()] == expected
    assert done.stderr == b""


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
