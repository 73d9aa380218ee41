"""`up` with the real daemons and the real engine; tests/clients has its other ways, over stand-ins."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kohakuriver.dockerapi.client import docker_url
from support.clients.command_line import CommandLine
from support.cluster.cluster import BIN, free_port, wait_for, write_busybox_tarball, write_config
from support.machine.turned_away import turned_away

pytestmark = [pytest.mark.docker, pytest.mark.root]


@pytest.fixture
def command(tmp_path: Path) -> Iterator[CommandLine]:
    """The command, in a home whose workload network overlaps that of the engine's own bridge."""
    base = tmp_path / ".kohakuriver"
    shared = base / "shared"
    write_busybox_tarball(shared / "kohakuriver-containers", "kohakuriver-base")
    both: dict[str, object] = {"SHARED_DIR": str(shared), "HOST_PORT": free_port()}
    write_config(
        base / "host_config.py",
        both
        | {
            "HOST_BIND_IP": "127.0.0.1",
            "HOST_SSH_PROXY_PORT": free_port(),
            "DB_FILE": str(base / "kohakuriver.db"),
        },
    )
    write_config(
        base / "runner_config.py",
        both
        | {
            "RUNNER_BIND_IP": "127.0.0.1",
            "RUNNER_PORT": free_port(),
            "LOCAL_TEMP_DIR": str(base / "local-temp"),
            "DOCKER_NETWORK_NAME": f"kr-test-up-{free_port()}",
            "DOCKER_NETWORK_SUBNET": "172.17.0.0/16",
            "DOCKER_NETWORK_GATEWAY": "172.17.0.1",
        },
    )
    command = CommandLine(tmp_path, python=str(BIN / "python"))
    yield command
    command.run("down")


@pytest.fixture
def late_engine(tmp_path: Path) -> Iterator[Path]:
    """Path of an engine's socket, behind which nobody answers until it is made a link to the real one."""
    place = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "nobody.sock"))
        listener.listen()
        place.symlink_to(tmp_path / "nobody.sock")
        with turned_away(listener):
            yield place


def test_up_tells_why_a_runner_ended_that_was_online(command: CommandLine, late_engine: Path) -> None:
    log = command.home / ".kohakuriver" / "logs" / "runner.log"
    with subprocess.Popen(
        command.argv("up"),
        env=command.environment(DOCKER_HOST=f"unix://{late_engine}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as up:
        try:
            wait_for(lambda: log.exists() and "shared_storage" in log.read_text(), "the node to be online")
            late_engine.unlink()
            late_engine.symlink_to(docker_url().removeprefix("unix://"))
            shown, complaint = up.communicate(timeout=60)
        finally:
            up.kill()
    assert up.returncode == 1, shown
    assert b"the runner ended with status 1; its log" in complaint
    assert b"DOCKER_NETWORK_SUBNET 172.17.0.0/16 overlaps the route" in complaint
