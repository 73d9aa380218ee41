"""What a node without tunnels still offers, and how it refuses the rest."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from settings.conftest import Contrast
from support.clients.vps_sshd import make_key, public_key_of
from support.cluster.cluster import BIN, wait_for
from support.cluster.vps import vps_with_ssh

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("settings"),
    pytest.mark.timeout(300),
]


def test_without_tunnels_no_port_is_forwarded_and_ssh_works(contrast: Contrast, tmp_path: Path) -> None:
    """On a node of its own, since that with all settings changed is privileged."""
    cluster, key = contrast.cluster, make_key(tmp_path / "key")
    runner = cluster.add_runner("kr-closed", TUNNEL_ENABLED=False)
    with vps_with_ssh(cluster, "kr-closed", ssh_public_key=public_key_of(key)) as task_id:
        refused = cluster.cli("forward", task_id, "0:8888")
        assert refused.returncode != 0
        assert b"this node has no tunnels (TUNNEL_ENABLED = False)" in refused.stderr
        assert refused.stdout == b""
        told = cluster.cli("ssh", "-i", str(key), task_id, "echo in; exit 5")
        assert (told.returncode, told.stdout) == (5, b"in\n"), told.stderr
    runner.end()


def test_with_tunnels_a_port_is_forwarded(contrast: Contrast) -> None:
    cluster = contrast.cluster
    task_id = cluster.submit("nc", "-ll", "-p", "8888", "-e", "cat", targets=["kr-plain"])
    cluster.await_state(task_id, "running")
    environment = {**os.environ, "HOME": str(cluster.host_home), **cluster.cli_environment()}
    argv = [str(BIN / "kohakuriver"), "forward", task_id, "0:8888"]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE) as forward:
        assert forward.stdout is not None
        port = int(forward.stdout.readline().split()[0].rpartition(b":")[2])
        wait_for(lambda: _echo(port) == b"there", "the task's service to answer")
        forward.terminate()
    cluster.client.post(f"/api/kill/{task_id}")
    cluster.finished(task_id)


def _echo(port: int) -> bytes:
    """What comes back of a word, nothing where the connection is ended."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"there")
        try:
            return connection.recv(5)
        except ConnectionResetError:
            return b""
