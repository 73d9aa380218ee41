"""What TUNNEL_ENABLED and TUNNEL_CLIENT_PATH do; each test looks at a contrast."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from settings.conftest import Contrast, run_once, sandboxes_of
from support.clients.vps_sshd import make_key, public_key_of
from support.cluster.cluster import BIN, wait_for, write_config
from support.cluster.vps import vps_with_ssh
from support.machine.debian_tree import SSH_IMAGE
from support.tunnel.services import CLIENT

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("settings"),
    pytest.mark.timeout(300),
]
_MACHINE_AT = 18
"""Where a program's file says of which machine it is."""
_HANDSHAKE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Protocol: kohakuriver.tunnel.v2",
)


def _clients(node: str) -> list[bytes]:
    """The programs that the first processes of the node's sandboxes have started."""
    sandboxes = sandboxes_of(node)
    return _clients_in(*sandboxes) if sandboxes else []


def _clients_in(*sandboxes: str) -> list[bytes]:
    pids = _inspected("{{.State.Pid}}", *sandboxes).split()
    started = [Path(f"/proc/{pid}/task/{pid}/children").read_text().split() for pid in pids]
    return [Path(f"/proc/{pid}/exe").read_bytes() for pids_of_one in started for pid in pids_of_one]


def _inspected(what: str, *containers: str) -> str:
    argv = ["docker", "inspect", "-f", what, *containers]
    return subprocess.run(argv, capture_output=True, check=True).stdout.decode().strip()


def test_tunnel_enabled(contrast: Contrast) -> None:
    path = "/ws/tunnel/kohakuriver-sandbox-0"
    assert "TUNNEL_ENABLED = False" in contrast.asked_by_task("kr-set", path, *_HANDSHAKE)
    assert "no sandbox of this name" in contrast.asked_by_task("kr-plain", path, *_HANDSHAKE)
    (folder,) = contrast.root.glob("kr-plain-home/.kohakuriver/runner/*/tunnels")
    assert list(folder.glob("*/secret"))
    assert not list(contrast.root.glob("kr-set-home/.kohakuriver/runner/*/tunnels"))
    task_id = contrast.cluster.submit("sleep", "300", targets=["kr-set"])
    contrast.cluster.await_state(task_id, "running")
    try:
        assert sandboxes_of("kr-set")
        assert _clients("kr-set") == []
        wait_for(lambda: _clients("kr-plain"), "a client in a sandbox")
    finally:
        contrast.cluster.api("POST", f"/api/kill/{task_id}")


def test_tunnel_enabled_counts_for_sandboxes_that_are_made_from_then_on(contrast: Contrast) -> None:
    cluster = contrast.cluster
    runner = cluster.add_runner("kr-switched", SANDBOX_POOL_SIZE=1)
    task_id = cluster.submit("sleep", "300", targets=["kr-switched"])
    cluster.await_state(task_id, "running")
    network = _inspected("{{.HostConfig.NetworkMode}}", f"kohakuriver-task-{task_id}")
    serving = network.removeprefix("container:")[:12]
    runner.end()
    write_config(contrast.root / "kr-switched.py", contrast.config("kr-switched") | {"TUNNEL_ENABLED": False})
    runner.start()
    (new,) = wait_for(lambda: set(sandboxes_of("kr-switched")) - {serving}, "another sandbox")
    assert _clients_in(new) == []
    assert _clients_in(serving) == [CLIENT.read_bytes()]
    assert cluster.status(task_id)["status"] == "running"
    cluster.api("POST", f"/api/kill/{task_id}")
    wait_for(lambda: serving not in sandboxes_of("kr-switched"), "the sandbox with a client to go")
    runner.end()


def test_without_tunnels_no_port_is_forwarded_and_ssh_works(contrast: Contrast, tmp_path: Path) -> None:
    """On a node of its own, since that with all settings changed is privileged."""
    cluster, key = contrast.cluster, make_key(tmp_path / "key")
    runner = cluster.add_runner("kr-closed", TUNNEL_ENABLED=False, LOCAL_IMAGES=[SSH_IMAGE])
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


def test_tunnel_client_path(contrast: Contrast) -> None:
    assert not [each for each in contrast.node("kr-plain")["notices"] if "tunnel client" in each]
    shipped = CLIENT.read_bytes()
    wait_for(lambda: set(_clients("kr-plain")) == {shipped}, "the shipped client in the sandboxes")
    chosen = contrast.root / "tunnel-client"
    chosen.write_bytes(shipped + b"of somebody's own")
    chosen.chmod(0o755)
    runner = contrast.cluster.add_runner("kr-own-client", TUNNEL_CLIENT_PATH=str(chosen))
    wait_for(lambda: set(_clients("kr-own-client")) == {chosen.read_bytes()}, "the chosen client")
    assert contrast.run("kr-own-client", "echo fine")[1] == "fine\n"
    assert contrast.node("kr-own-client")["notices"] == contrast.node("kr-plain")["notices"]
    runner.end()


@pytest.mark.parametrize("unfit", ["no static program", "does not run on this machine", "speaks"])
def test_with_an_unfit_tunnel_client_a_runner_does_not_start(contrast: Contrast, unfit: str) -> None:
    path = contrast.root / "unfit-client"
    path.write_bytes(_unfit_client(unfit))
    path.chmod(0o755)
    ended = run_once(contrast.cluster.runner_config("kr-unfit", TUNNEL_CLIENT_PATH=str(path)), "kr-unfit")
    assert ended.returncode == 1
    assert f"the tunnel client {path} " in ended.stderr.decode()
    assert unfit in ended.stderr.decode()


def _unfit_client(why: str) -> bytes:
    shipped = CLIENT.read_bytes()
    return {
        "no static program": Path("/usr/bin/env").read_bytes(),
        "does not run on this machine": shipped[:_MACHINE_AT] + b"\xff" + shipped[_MACHINE_AT + 1 :],
        "speaks": shipped.replace(b"kohakuriver.tunnel.v2", b"kohakuriver.tunnel.v9"),
    }[why]
