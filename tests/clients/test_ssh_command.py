"""`kohakuriver ssh` through the gateway to a VPS, and the configuration that `ssh config` writes."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from support.clients.pty_session import pty_session
from support.clients.ssh_place import Place, lab
from support.clients.vps_sshd import make_key, public_key_of
from support.host.gateway import HELEN, HELENS, IVAN

pytestmark = pytest.mark.root
pytest_plugins = ["support.clients.ssh_fixtures"]


# The command


def test_a_command_runs_in_the_vps_and_its_status_is_passed_on(place: Place) -> None:
    for ref in ("lab", "4242", str(HELENS)):
        done = place.command.run("ssh", "-i", str(place.sshd.user_key), ref, "echo out; echo err >&2; exit 7")
        assert (done.returncode, done.stdout) == (7, b"out\n"), done.stderr
        assert done.stderr.endswith(b"err\n")
    assert {line["actor"] for line in place.harness.lines("ssh.open done")} == {"helen"}


def test_arguments_go_to_ssh_as_they_are(place: Place) -> None:
    done = place.command.run(
        "ssh", "-i", str(place.sshd.user_key), "lab", "-T", "-o", "LogLevel=ERROR", "--", "id", "-un"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{place.sshd.user}\n".encode(), b"")


def test_the_key_that_was_made_for_the_vps_is_found_by_itself(place: Place) -> None:
    keys = place.home / ".kohakuriver" / "keys"
    keys.mkdir(parents=True)
    shutil.copy(place.sshd.user_key, keys / "lab")
    done = place.command.run("ssh", "lab", "-o", "BatchMode=yes", "true")
    assert done.returncode == 0, done.stderr


def test_terminal_and_signals_belong_to_ssh_itself(place: Place) -> None:
    argv = place.command.argv(
        "ssh", "-i", str(place.sshd.user_key), "lab", "-t", "trap 'exit 9' INT; echo ready; cat"
    )
    with pty_session(argv, place.command.environment()) as terminal:
        terminal.wait_for("ready")
        terminal.send("hello\r")
        terminal.wait_for("hello\r\nhello\r\n")
        assert os.path.basename(os.readlink(f"/proc/{terminal.pid}/exe")) == "ssh"
        terminal.send("\x03")
        assert terminal.wait() == 9


def test_a_vps_that_shows_another_host_key_is_refused(place: Place, tmp_path: Path) -> None:
    other = public_key_of(make_key(tmp_path / "other"))
    place.tell(lab(place.sshd, host_public_key=other))
    done = place.command.run("ssh", "-i", str(place.sshd.user_key), "lab", "true")
    assert done.returncode == 255
    assert b"verification failed" in done.stderr.lower()


def test_a_gateway_that_shows_another_key_is_not_told_the_token(place: Place, tmp_path: Path) -> None:
    other = public_key_of(make_key(tmp_path / "other"))
    told = {"host": "127.0.0.1", "port": place.harness.port, "host_key": other}
    place.host.answer("GET", "/api/vps/gateway", told)
    done = place.command.run("ssh", "-i", str(place.sshd.user_key), "lab", "true")
    assert done.returncode == 255
    assert b"is not the SSH gateway of this host" in done.stderr
    assert not place.harness.lines("ssh.login done")
    assert not place.harness.lines("ssh.login refused")


def test_refusals_of_the_gateway_are_said_in_its_words(place: Place) -> None:
    ivans = place.command.run("ssh", "-i", str(place.sshd.user_key), "lab", "true", KOHAKURIVER_TOKEN=IVAN)
    assert ivans.returncode == 255
    assert b"no VPS of that name or id runs that you may use" in ivans.stderr
    nobodys = place.command.run(
        "ssh", "-i", str(place.sshd.user_key), "lab", "true", KOHAKURIVER_TOKEN="kr_x"
    )
    assert b"does not take this token" in nobodys.stderr


def test_what_cannot_be_reached_is_said_before_ssh_is_started(place: Place) -> None:
    unknown = place.command.run("ssh", "cellar")
    assert unknown.returncode == 3
    place.tell(lab(place.sshd, ssh_key_mode="disabled"))
    without = place.command.run("ssh", "lab")
    assert without.returncode == 1
    assert b"kohakuriver connect" in without.stderr
    place.tell(lab(place.sshd, task_type="command"))
    assert place.command.run("ssh", "lab").returncode == 3


def test_the_port_that_the_user_says_is_the_one_that_is_used(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = str(nobody.getsockname()[1])
    done = place.command.run("ssh", "--proxy", "lab", KOHAKURIVER_SSH_PROXY_PORT=port)
    assert done.returncode == 5
    assert port.encode() in done.stderr
    wrong = place.command.run("ssh", "--proxy", "lab", KOHAKURIVER_SSH_PROXY_PORT="ssh")
    assert wrong.returncode == 2


def test_the_port_of_the_settings_file_is_for_the_host_of_that_file_alone(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    settings = place.home / ".kohakuriver" / "cli_config.py"
    settings.parent.mkdir()
    for api_port, exit_status in ((place.host.port, 5), (place.host.port + 1, 0)):
        settings.write_text(f'HOST = "127.0.0.1"\nPORT = {api_port}\nSSH_PROXY_PORT = {port}\n')
        argv = place.command.argv("ssh", "--proxy", "lab")
        done = subprocess.run(
            argv, input=b"", env=place.command.environment(), capture_output=True, timeout=60, check=False
        )
        assert done.returncode == exit_status, done.stderr
        assert (str(port).encode() in done.stderr) is (exit_status == 5)


def test_without_an_ssh_client_that_is_what_is_said(place: Place) -> None:
    done = place.command.run("ssh", "lab", PATH="/nowhere")
    assert done.returncode == 2
    assert b"openssh-client" in done.stderr


def test_no_token_stands_in_the_arguments_of_any_process(place: Place) -> None:
    argv = place.command.argv("ssh", "-i", str(place.sshd.user_key), "lab", "echo up; exec sleep 60")
    process = subprocess.Popen(
        argv, env=place.command.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                assert HELEN.encode() not in file.read_bytes()
            except OSError:
                continue
    finally:
        process.terminate()
        process.communicate(timeout=20)


# The configuration


def test_the_configuration_names_vps_with_ssh_and_nothing_that_the_host_could_slip_in(
    place: Place,
) -> None:
    place.tell(
        lab(place.sshd),
        lab(place.sshd, task_id="310000000000001111", name="lab"),
        lab(place.sshd, task_id="310000000000002222", name="open", ssh_key_mode="none"),
        lab(place.sshd, task_id="310000000000003333", name="shut", ssh_key_mode="disabled"),
        lab(place.sshd, task_id="310000000000007777", name="dead", status="killed"),
        lab(place.sshd, task_id="310000000000008888", name="kept", status="stopped"),
        lab(place.sshd, task_id="310000000000004444", name="github.com"),
        lab(place.sshd, task_id="310000000000005555", name="x\n  ProxyCommand touch /tmp/owned"),
        lab(place.sshd, task_id="310000000000006666", name="* !lab"),
    )
    text = place.write_config()
    hosts = [line for line in text.splitlines() if line.startswith("Host ")]
    assert hosts == [
        "Host kohakuriver-gateway",
        f"Host lab vps-{HELENS}",
        "Host vps-310000000000001111",
        "Host open vps-310000000000002222",
        "Host kept vps-310000000000008888",
        "Host vps-310000000000004444",
        "Host vps-310000000000005555",
        "Host vps-310000000000006666",
    ]
    assert "owned" not in text
    assert text.count("ProxyCommand") == 1
    assert HELEN not in text


def test_keys_and_ids_that_are_none_are_refused(place: Place) -> None:
    for bad in ({"host_public_key": "ssh-ed25519 AAAA\n* ssh-ed25519 BBBB"}, {"task_id": "1 evil"}):
        place.tell(lab(place.sshd, **bad))
        done = place.command.run("ssh", "config")
        assert done.returncode == 2, bad
        assert done.stdout == b""


def test_written_files_are_the_users_own_and_keep_the_keys_of_other_clusters(place: Place) -> None:
    folder = place.home / ".kohakuriver"
    folder.mkdir()
    (folder / "known_hosts").write_text(
        "kohakuriver-vps-7 ssh-ed25519 AAAAother other.cluster:8002\n"
        f"kohakuriver-vps-8 ssh-ed25519 AAAAgone 127.0.0.1:{place.harness.port}\n"
    )
    done = place.command.run("ssh", "config", "--write")
    assert done.returncode == 0, done.stderr
    assert f"Include {folder / 'ssh_config'}".encode() in done.stdout
    for name in ("ssh_config", "known_hosts"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    known = (folder / "known_hosts").read_text()
    assert "AAAAother" in known
    assert "AAAAgone" not in known
    assert sorted(os.listdir(folder)) == ["known_hosts", "ssh_config"]
    place.config.write_text(f'BatchMode yes\nInclude "{folder / "ssh_config"}"\n')
    assert (
        place.stock(
            "ssh", "-i", str(place.sshd.user_key), "-o", f"IdentityFile={place.sshd.user_key}", "-G", "lab"
        ).returncode
        == 0
    )


@pytest.mark.parametrize(
    "words",
    [
        ("ssh", "connect", "lab", "--user", "root", "--key"),
        ("vps", "connect", "lab", "-i"),
    ],
)
def test_the_names_of_before_lead_to_the_same_shell(place: Place, words: tuple[str, ...]) -> None:
    done = subprocess.run(
        place.command.argv(*words, str(place.sshd.user_key)),
        env=place.command.environment(),
        input=b"echo up; exit 7\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, b"up\n" in done.stdout) == (7, True), done.stderr


def test_the_port_of_the_gateway_can_be_said(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = str(nobody.getsockname()[1])
    key = str(place.sshd.user_key)
    done = place.command.run("ssh", "connect", "lab", "--key", key, "--proxy-port", port)
    assert done.returncode == 255
    assert port.encode() in done.stderr
    assert place.command.run("ssh", "connect", "lab", "--local-port", "2222").returncode == 2


def test_the_configuration_is_written_to_a_file_of_choice(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "chosen"
    done = place.command.run("ssh", "config", "--output", str(file))
    assert (done.returncode, str(file).encode() in done.stdout) == (0, True), done.stderr
    assert file.read_bytes() == place.command.run("ssh", "config").stdout
