"""`up` and `down` as processes, over stand-ins of the two daemons; tests/cluster has the real ones."""

import ipaddress
import json
import os
import re
import signal
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.cli.local.cluster import daemons_of
from kohakuriver.cli.local.daemons import Daemon
from kohakuriver.cli.local.files import ensure_local_files
from kohakuriver.config import HOST, RUNNER, load_host_config, load_runner_config, render_template
from kohakuriver.confirmed_host import confirmed_host
from kohakuriver.models.errors import InvalidInput
from kohakuriver.wire.trust.identity import Identity
from support.clients import stub_daemons
from support.clients.command_line import CommandLine
from support.clients.stub_host import StubHost
from support.cluster.config_files import write_config
from support.machine.turned_away import turned_away


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """`~/.kohakuriver` with files that take free ports."""
    folder = tmp_path / "home" / ".kohakuriver"
    folder.mkdir(parents=True)
    host_port, runner_port = free_port(), free_port()
    paths: dict[str, object] = {"SHARED_DIR": str(folder / "shared"), "HOST_PORT": host_port}
    host = {**paths, "HOST_BIND_IP": "127.0.0.1", "DB_FILE": str(folder / "host.db")}
    runner = {
        **paths,
        "RUNNER_BIND_IP": "127.0.0.1",
        "RUNNER_PORT": runner_port,
        "LOCAL_TEMP_DIR": str(folder / "local-temp"),
    }
    for program, values in ((HOST, host), (RUNNER, runner)):
        (folder / program.file_name).write_text(render_template(program, values))
    return folder


@pytest.fixture
def command(base: Path, tmp_path: Path) -> Iterator[CommandLine]:
    """The command line, with stand-ins for the daemons and for the Docker engine's socket."""
    python = stub_daemons.install(tmp_path)
    engine = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(engine))
        listener.listen()
        variables = {"PYTHONPATH": stub_daemons.python_path(), "DOCKER_HOST": f"unix://{engine}"}
        command = CommandLine(base.parent, None, str(python), variables)
        yield command
        command.run("down")


@contextmanager
def engine_with(path: Path, networks: list[dict[str, Any]]) -> Iterator[str]:
    """A stand-in for an engine that lists these networks; gives its address."""

    class Listing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(networks if self.path == "/networks" else []).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    with socketserver.ThreadingUnixStreamServer(str(path), Listing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"unix://{path}"
        server.shutdown()
        thread.join()


def pids(base: Path) -> list[int | None]:
    return [daemon.pid() for daemon in daemons_of(base)]


def test_up_starts_both_lets_the_runner_in_and_runs_a_task(command: CommandLine, base: Path) -> None:
    done = command.run("up")
    shown = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    assert "output of the first task\n" in shown
    assert f"http://127.0.0.1:{load_host_config(base / 'host_config.py').host_port}/docs" in shown
    assert "kohakuriver vps create lab --ssh" in shown
    assert all(pids(base))


def test_a_second_up_keeps_what_runs_and_ends_the_same_way(command: CommandLine, base: Path) -> None:
    command.run("up")
    before = pids(base)
    done = command.run("up")
    assert done.returncode == 0, done.stderr.decode()
    assert b"output of the first task\n" in done.stdout
    assert pids(base) == before


def test_up_starts_again_what_has_died(command: CommandLine, base: Path) -> None:
    command.run("up")
    host, runner = pids(base)
    assert host
    assert runner
    os.kill(runner, signal.SIGKILL)
    assert command.run("up").returncode == 0
    assert pids(base)[0] == host
    assert pids(base)[1] not in (None, runner)


def test_down_ends_both_and_keeps_the_files(command: CommandLine, base: Path) -> None:
    command.run("up")
    done = command.run("down")
    assert done.returncode == 0
    assert b"The host has ended" in done.stdout
    assert pids(base) == [None, None]
    assert (base / "host_config.py").exists()
    assert b"did not run" in command.run("down").stdout


def test_a_daemon_that_dies_is_told_with_the_end_of_its_log(command: CommandLine, base: Path) -> None:
    (base / "break_host").write_text("1")
    done = command.run("up")
    assert done.returncode == 1
    assert b"the host ended with status 1" in done.stderr
    assert b"the host cannot go on: \\x1b[31mno more room" in done.stderr


def test_a_runner_that_ends_after_it_registered_is_told_and_not_waited_for(
    command: CommandLine, base: Path
) -> None:
    """It is online already when it finds out that it cannot work."""
    (base / "break_runner").touch()
    done = command.run("up", "--no-task")
    assert (done.returncode, b"The cluster runs" in done.stdout) == (1, False), done.stdout
    assert b"the runner ended with status 1; its log" in done.stderr
    assert b"this subnet overlaps a route of this node" in done.stderr


def test_a_runner_that_ends_under_the_first_task_ends_the_waiting(command: CommandLine, base: Path) -> None:
    (base / "break_runner_later").touch()
    done = command.run("up")
    assert done.returncode == 1
    assert b"the runner ended with status 1; its log" in done.stderr


def test_a_runner_that_an_earlier_up_started_is_watched_as_well(command: CommandLine, base: Path) -> None:
    (base / "break_runner_later").touch()
    assert command.run("up", "--no-task").returncode == 0
    done = command.run("up")
    assert (done.returncode, b"the runner has ended; its log" in done.stderr) == (1, True), done.stderr


def test_a_daemon_that_refuses_its_configuration_is_78(command: CommandLine, base: Path) -> None:
    (base / "break_host").write_text("78")
    assert command.run("up").returncode == 78


def test_a_bad_configuration_starts_nothing(command: CommandLine, base: Path) -> None:
    (base / "runner_config.py").write_text("RUNNER_PORT = 'x'\nHEARTBEAT_INTERVAL_SECONDS = 0\n")
    done = command.run("up")
    assert done.returncode == 78
    assert b"RUNNER_PORT" in done.stderr
    assert b"HEARTBEAT_INTERVAL_SECONDS" in done.stderr
    assert pids(base) == [None, None]


def test_a_port_of_another_program_is_told_with_its_holder(command: CommandLine, base: Path) -> None:
    port = load_host_config(base / "host_config.py").host_port
    # Whoever connects is turned away at once, as by a program that speaks another protocol.
    with socket.create_server(("127.0.0.1", port)) as listener, turned_away(listener):
        done = command.run("up")
    assert done.returncode == 1
    assert f"port {port}".encode() in done.stderr
    assert f"with pid {os.getpid()}".encode() in done.stderr
    assert b"set HOST_PORT in" in done.stderr


def test_up_says_nothing_to_a_stranger_on_the_port_of_its_host(command: CommandLine, base: Path) -> None:
    assert command.run("up", "--no-task").returncode == 0
    runner = base / "runner" / socket.gethostname()
    identity = Identity.load_or_create(base / "host_identity.key")
    assert confirmed_host(runner) == identity.fingerprint, "the runner was told which host is its own"
    command.run("down")
    stranger = StubHost(load_host_config(base / "host_config.py").host_port)
    stranger.answer("GET", "/healthz", {"status": "ok"})
    stranger.answer("GET", "/api/nodes", [])
    try:
        done = command.run("up")
    finally:
        stranger.close()
    assert (done.returncode, b"no token was sent" in done.stderr) == (4, True), done.stderr
    assert not [request for request in stranger.requests if "authorization" in request.headers]


def test_the_key_of_a_host_is_printed_and_confirmed_by_hand(command: CommandLine, base: Path) -> None:
    missing = command.run("host", "fingerprint")
    assert (missing.returncode, b"start it once" in missing.stderr) == (3, True)
    identity = Identity.load_or_create(base / "host_identity.key")
    shown = command.run("host", "fingerprint")
    assert (shown.returncode, shown.stdout.decode()) == (0, f"{identity.fingerprint}\n"), shown.stderr
    wrong = command.run("runner", "trust", "SHA256:short")
    assert (wrong.returncode, b"is no fingerprint" in wrong.stderr) == (2, True)
    assert command.run("runner", "trust", identity.fingerprint).returncode == 0
    folder = base / "runner" / socket.gethostname()
    assert confirmed_host(folder) == identity.fingerprint
    assert (folder / "confirmed_host").stat().st_mode & 0o777 == 0o600
    (folder / "confirmed_host").chmod(0o666)
    with pytest.raises(InvalidInput, match="closed to others"):
        confirmed_host(folder)


def test_a_host_of_somebody_else_is_told_at_once(command: CommandLine, base: Path) -> None:
    other = StubHost(load_host_config(base / "host_config.py").host_port)
    other.answer("GET", "/healthz", {"status": "ok"})
    other.answer("GET", "/api/nodes", {"detail": "who are you?"}, 401)
    try:
        done = command.run("up")
    finally:
        other.close()
    assert done.returncode != 0
    assert b"another KohakuRiver host" in done.stderr
    assert b"HOST_PORT" in done.stderr
    assert pids(base) == [None, None]


def test_a_missing_engine_is_told_before_anything_starts(command: CommandLine, base: Path) -> None:
    done = command.run("up", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert done.returncode == 1
    assert b"no Docker daemon answers at /nowhere/docker.sock" in done.stderr
    assert pids(base) == [None, None]


def test_a_runner_with_another_key_is_not_let_in(command: CommandLine, base: Path) -> None:
    (base / "impostor").touch()
    done = command.run("up")
    assert done.returncode == 1
    assert b"SHA256:somebody-else" in done.stderr


def test_a_pid_that_another_process_has_by_now_is_never_ended(base: Path) -> None:
    daemon = daemons_of(base)[0]
    with subprocess.Popen(["sleep", "60"]) as other:
        (base / "host.pid").write_text(f'{{"pid": {other.pid}, "birth": "another boot 12345"}}')
        assert daemon.pid() is None
        assert daemon.stop(1) is False
        assert other.poll() is None
        other.kill()


def test_a_daemon_that_ignores_the_request_to_end_is_ended_by_force(base: Path) -> None:
    daemon = Daemon("host", base, base / "host_config.py")
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    with subprocess.Popen(["python3", "-c", code], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        daemon.note(stubborn.pid)
        assert daemon.pid() == stubborn.pid
        assert daemon.stop(0.2) is True
        assert stubborn.wait(10) == -signal.SIGKILL


def test_missing_files_are_written_for_this_machine_alone(tmp_path: Path) -> None:
    base = tmp_path / ".kohakuriver"
    cluster = ensure_local_files(base)
    assert [path.name for path in cluster.written] == ["host_config.py", "runner_config.py"]
    assert (cluster.host.host_bind_ip, cluster.runner.runner_bind_ip) == ("127.0.0.1", "127.0.0.1")
    assert cluster.host.shared_dir == cluster.runner.shared_dir == str(base / "shared")
    for path in (cluster.host.db_file, cluster.runner.local_temp_dir, cluster.runner.vm_images_dir):
        assert path.startswith(str(base))
    assert ensure_local_files(base).written == ()


def test_up_takes_a_free_subnet_on_a_machine_where_the_default_is_taken(
    command: CommandLine, tmp_path: Path, base: Path
) -> None:
    (base / "runner_config.py").unlink()
    networks = [
        {"Name": "none", "IPAM": {"Config": None}},
        {"Name": "shop", "IPAM": {"Config": [{"Subnet": "172.30.4.0/24", "Gateway": "172.30.4.1"}]}},
        {"Name": "lab", "IPAM": {"Config": [{"Subnet": "fd00::/64"}, {"Subnet": "172.31.0.0/16"}]}},
    ]
    with engine_with(tmp_path / "engine.sock", networks) as address:
        done = command.run("up", "--no-task", DOCKER_HOST=address)
    runner = load_runner_config(base / "runner_config.py")
    subnet = ipaddress.IPv4Network(runner.docker_network_subnet)
    assert subnet.prefixlen == 16
    for taken in ("172.30.0.0/16", "172.31.0.0/16"):
        assert not subnet.overlaps(ipaddress.IPv4Network(taken))
    assert ipaddress.IPv4Address(runner.docker_network_gateway) == subnet[1]
    # (a cluster that `make up` made on this machine has a route there itself)
    said = re.search(
        r"172\.30\.0\.0/16 is taken here \((.+) has (172\.30\..+)\), so (.+);", done.stdout.decode()
    )
    assert said is not None
    assert said[3] == f"workloads get {subnet}"
    assert (
        said[1] == "Docker network shop"
        or subprocess.run(
            ["ip", "route", "show", said[2], "dev", said[1]], capture_output=True, check=True
        ).stdout
    )


def test_a_new_runner_file_follows_the_host_file_that_is_there(tmp_path: Path) -> None:
    base = tmp_path / ".kohakuriver"
    base.mkdir()
    write_config(base, f"HOST_PORT = 8123\nSHARED_DIR = {str(tmp_path)!r}\n", "host_config.py")
    cluster = ensure_local_files(base)
    assert [path.name for path in cluster.written] == ["runner_config.py"]
    assert (cluster.runner.host_port, cluster.runner.shared_dir) == (8123, str(tmp_path))
    assert cluster.url == "http://127.0.0.1:8123"
