"""`kohakuriver ssh` and stock SSH clients, through the gateway, to a VPS's own sshd."""

import hashlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.clients.command_line import CommandLine
from support.clients.pty_session import pty_session
from support.clients.stub_host import StubHost, stub_host, task_record
from support.clients.vps_sshd import VpsSshd, make_key, public_key_of, vps_sshd
from support.host.gateway import HELEN, HELENS, IVAN, IVANS, GatewayHarness, gateway, vps
from support.machine.processes import wait_until

pytestmark = pytest.mark.root


@dataclass(frozen=True)
class Place:
    """A host with its gateway, Helen's VPS on it, and Helen's own machine."""

    host: StubHost
    harness: GatewayHarness
    sshd: VpsSshd
    command: CommandLine

    @property
    def home(self) -> Path:
        return self.command.home

    @property
    def config(self) -> Path:
        """Where stock clients look; `ssh -J` cannot be given a path with spaces."""
        return self.home.parent / "config"

    def tell(self, *records: dict[str, Any]) -> None:
        """What the host says of VPSs."""
        self.host.answer("GET", "/api/vps", list(records))
        for record in records:
            self.host.answer("GET", f"/api/status/{record['task_id']}", record)

    def stock(
        self, *argv: str, said: bytes = b"", variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a client that knows nothing but the configuration that `ssh config` wrote."""
        return subprocess.run(
            [argv[0], "-F", str(self.config), *argv[1:]],
            env=self.command.environment(**(variables or {})),
            input=said,
            capture_output=True,
            timeout=120,
            check=False,
        )

    def write_config(self, *arguments: str) -> str:
        written = self.command.run("ssh", "config", "-i", str(self.sshd.user_key), *arguments)
        assert written.returncode == 0, written.stderr
        self.config.write_bytes(b"BatchMode yes\n" + written.stdout)
        return written.stdout.decode()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VpsSshd]:
    with vps_sshd(tmp_path_factory.mktemp("session") / "sshd") as running:
        yield running


@pytest.fixture
def place(sshd: VpsSshd, tmp_path: Path) -> Iterator[Place]:
    harness = GatewayHarness()
    harness.add(vps(HELENS, "helen", "lab", (sshd.user_public_key,)), sshd.port)
    home = tmp_path / "helen's 100%h home"
    home.mkdir()
    with gateway(harness), stub_host() as host:
        told = {"host": "host.of.another.name", "port": harness.port, "host_key": harness.public_key}
        host.answer("GET", "/api/vps/gateway", told)
        host.script("GET", "/api/tasks/resolve", lambda request: _resolved(request.query["ref"]))
        known = {"KOHAKURIVER_HOST_FINGERPRINT": host.identity.fingerprint}
        command = CommandLine(home, host.url, variables={"KOHAKURIVER_TOKEN": HELEN, **known})
        made = Place(host, harness, sshd, command)
        made.tell(lab(sshd))
        yield made


def _resolved(ref: str) -> Any:
    from support.clients.stub_host import Answer

    known = {"lab": HELENS, str(HELENS): HELENS, "4242": HELENS, "attic": IVANS}
    return (
        Answer({"task_id": str(known[ref])}) if ref in known else Answer({"detail": "there is no task"}, 404)
    )


def lab(sshd: VpsSshd, **fields: Any) -> dict[str, Any]:
    """Helen's VPS as the host describes it."""
    told = {"name": "lab", "task_type": "vps", "status": "running", "ssh_key_mode": "upload"}
    return task_record(str(HELENS), **told, host_public_key=f"{sshd.host_public_key} lab") | fields


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


# Stock clients


def test_stock_ssh_jumps_through_the_gateway_with_the_vps_key(place: Place) -> None:
    place.write_config()
    done = place.stock("ssh", "lab", "echo $SSH_CONNECTION")
    assert done.returncode == 0, done.stderr
    by_hand = place.stock("ssh", "-J", "kohakuriver-gateway", f"vps-{HELENS}", "echo jumped")
    assert by_hand.stdout == b"jumped\n", by_hand.stderr
    assert {line["actor"] for line in place.harness.lines("ssh.login done")} == {"holder of a key"}


def test_a_vps_without_keys_is_reached_with_the_token(place: Place) -> None:
    place.tell(lab(place.sshd, ssh_key_mode="none"))
    text = place.write_config()
    assert "ProxyJump" not in text
    done = place.stock("ssh", "-i", str(place.sshd.user_key), "lab", "echo in")
    assert done.stdout == b"in\n", done.stderr
    assert {line["actor"] for line in place.harness.lines("ssh.login done")} == {"helen"}


def test_a_large_file_arrives_whole_in_both_directions_by_scp_sftp_and_rsync(
    place: Place, tmp_path: Path
) -> None:
    place.write_config()
    original = tmp_path / "original"
    original.write_bytes(os.urandom(24 << 20))
    expected = _digest(original)
    config = str(place.config)
    far, back = tmp_path / "far", tmp_path / "back"
    steps = {
        "scp": [[str(original), f"lab:{far}"], [f"lab:{far}", str(back)]],
        "rsync": [
            ["-a", "-e", f"ssh -F '{config}'", *pair]
            for pair in ([str(original), f"lab:{far}"], [f"lab:{far}", str(back)])
        ],
        "sftp": [["-b", "-", "lab"]],
    }
    for program, calls in steps.items():
        for arguments in calls:
            argv = [program, *arguments] if program == "rsync" else [program, "-F", config, *arguments]
            batch = f'put "{original}" "{far}"\nget "{far}" "{back}"\n'.encode() if program == "sftp" else b""
            done = subprocess.run(
                argv,
                input=batch,
                env=place.command.environment(),
                capture_output=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, (argv, done.stderr)
        assert (_digest(far), _digest(back)) == (expected, expected), program
        far.unlink()
        back.unlink()


def test_input_that_ends_still_gets_its_answer(place: Place) -> None:
    place.write_config()
    data = os.urandom(3 << 20)
    done = place.stock("ssh", "lab", "sha256sum", said=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest(), done.stderr


def test_an_agent_is_forwarded_to_the_vps_and_not_to_the_gateway(place: Place, tmp_path: Path) -> None:
    place.write_config()
    with ssh_agent(tmp_path / "agent") as agent:
        subprocess.run(
            ["ssh-add", "-q", str(place.sshd.user_key)], env=agent, check=True, capture_output=True
        )
        done = place.stock("ssh", "-A", "lab", "ssh-add -L", variables=agent)
    assert done.stdout.decode().split()[:2] == place.sshd.user_public_key.split(), done.stderr
    assert not place.harness.lines("ssh.open refused")


def test_ports_of_the_vps_are_reached_by_forwarding_inside(place: Place) -> None:
    place.write_config()
    with socket.create_server(("127.0.0.1", 0)) as service:
        threading.Thread(target=_greet_once, args=(service,), daemon=True).start()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            local = probe.getsockname()[1]
        forward = f"127.0.0.1:{local}:127.0.0.1:{service.getsockname()[1]}"
        argv = [
            "ssh",
            "-F",
            str(place.config),
            "-o",
            "ExitOnForwardFailure=yes",
            "-N",
            "-L",
            forward,
            "lab",
        ]
        process = subprocess.Popen(argv, env=place.command.environment(), stdin=subprocess.DEVNULL)
        try:
            wait_until(lambda: _says(local) == b"from inside", 20, "the forwarded port")
        finally:
            process.terminate()
            process.wait(20)


def test_twenty_at_once_do_not_mix(place: Place) -> None:
    place.write_config()
    argv = ["ssh", "-F", str(place.config), "lab"]
    data = [os.urandom(1 << 18) for _ in range(20)]
    processes = [
        subprocess.Popen(
            [*argv, "cat"], env=place.command.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in data
    ]
    answers: dict[int, bytes] = {}

    def converse(number: int) -> None:
        answers[number] = processes[number].communicate(data[number], timeout=100)[0]

    threads = [threading.Thread(target=converse, args=(number,)) for number in range(len(data))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[number] for number in range(len(data))] == data
    wait_until(lambda: len(place.harness.lines("ssh_closed")) == len(data), 20, "all to be closed")


def test_a_token_that_is_revoked_ends_the_ssh_that_it_opened(place: Place) -> None:
    argv = place.command.argv("ssh", "-i", str(place.sshd.user_key), "lab", "echo up; exec sleep 60")
    process = subprocess.Popen(
        argv,
        env=place.command.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        began = time.monotonic()
        place.harness.put_token(HELEN, None)
        assert process.wait(20) == 255
        assert time.monotonic() - began < 10
    finally:
        process.kill()
        process.communicate()


@contextmanager
def ssh_agent(path: Path) -> Iterator[dict[str, str]]:
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        wait_until(path.exists, 10, "the agent")
        yield {"SSH_AUTH_SOCK": str(path)}
    finally:
        process.terminate()
        process.wait(10)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _greet_once(service: socket.socket) -> None:
    connection, _ = service.accept()
    with connection:
        connection.sendall(b"from inside")


def _says(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            return connection.recv(100)
    except OSError:
        return b""


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
