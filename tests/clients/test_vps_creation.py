"""`vps create`: what is sent, what is waited for, and where keys go."""

import json
import stat
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from support.clients.answers import KEY, TIME, VPS, serve, vps
from support.clients.command_line import CommandLine
from support.clients.pty_session import pty_session
from support.clients.stub_host import Answer, StubHost

OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIS5NytO4dCIA9JYxNbaGO9uoPwi1aPbQ/NQV8yIgDxk"
PRIVATE_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\ncanary\n-----END OPENSSH PRIVATE KEY-----\n"


def serve_creation(host: StubHost, *records: dict[str, Any], **answer: Any) -> None:
    serve(host, *(records or (vps(),)))
    created = {"task_id": VPS, "name": "lab", "ssh_port": 22, "assigned_node": None, "message": "it starts"}
    host.answer("POST", "/api/vps/create", created | answer)


def serve_generated(host: StubHost, *records: dict[str, Any]) -> None:
    serve_creation(host, *records, ssh_private_key=PRIVATE_KEY, ssh_public_key=KEY)


def sent(host: StubHost) -> Any:
    (request,) = host.calls("POST", "/api/vps/create")
    return request.json


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
