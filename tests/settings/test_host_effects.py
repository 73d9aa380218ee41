"""One test per host setting of the groups that take effect now; the loading of all is tested beside this."""

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from support.cluster.cluster import BIN, Cluster, free_port, running_cluster, wait_for, write_config

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("host-settings"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def set_host(tmp_path_factory: pytest.TempPathFactory) -> object:
    root = tmp_path_factory.mktemp("host-settings")
    (root / "tarballs").mkdir()
    (root / "tarballs" / "kr-default-1700000000.tar").write_bytes(b"not looked into")
    settings = {
        "CONTAINER_DIR": str(root / "tarballs"),
        "DEFAULT_CONTAINER_NAME": "kr-default",
        "HOST_LOG_FILE": str(root / "host-file.log"),
        "LOG_LEVEL": "warning",
        "AUTH_ENABLED": False,
        "MAX_WAITING_TASKS_PER_USER": 2,
        "MAX_WAITING_MIB_PER_USER": 1,
        "SSH_PROXY_V1": True,
    }
    with running_cluster(root, **settings) as cluster:
        yield cluster


def _exit_of(path: Path, home: Path) -> subprocess.CompletedProcess[bytes]:
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [str(BIN / "kohakuriver.host"), "--config", str(path)],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        timeout=20,
        check=False,
    )


def test_host_bind_ip(set_host: Cluster) -> None:
    for address, listens in (("127.0.0.1", True), ("127.0.0.2", False)):
        with socket.socket() as probe:
            assert (probe.connect_ex((address, set_host.port)) == 0) is listens


def test_host_port_that_is_taken(set_host: Cluster, tmp_path: Path) -> None:
    config = tmp_path / "host.py"
    write_config(config, {**set_host.host_settings, "DB_FILE": str(tmp_path / "other.db")})
    ended = _exit_of(config, tmp_path / "home")
    assert ended.returncode == 1
    assert f"port {set_host.port}".encode() in ended.stderr
    assert not (tmp_path / "other.db").exists()


def test_host_ssh_proxy_port(set_host: Cluster) -> None:
    port = int(str(set_host.host_settings["HOST_SSH_PROXY_PORT"]))
    assert set_host.api("GET", "/api/vps/gateway")["port"] == port
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        assert client.recv(100).startswith(b"SSH-2.0-KohakuRiver")


def test_ssh_proxy_v1(set_host: Cluster) -> None:
    port = int(str(set_host.host_settings["HOST_SSH_PROXY_PORT"]))
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(b"REQUEST_TUNNEL 7\n")
        assert client.recv(200) == b"ERROR no VPS of that id runs whose SSH asks for a key\n"


def test_host_ssh_proxy_port_that_is_taken(set_host: Cluster, tmp_path: Path) -> None:
    config = tmp_path / "host.py"
    other = {"HOST_PORT": free_port(), "DB_FILE": str(tmp_path / "other.db")}
    write_config(config, {**set_host.host_settings, **other})
    ended = _exit_of(config, tmp_path / "home")
    assert ended.returncode == 1
    assert f"port {set_host.host_settings['HOST_SSH_PROXY_PORT']}".encode() in ended.stderr
    assert b"HOST_SSH_PROXY_PORT" in ended.stderr
    assert not (tmp_path / "other.db").exists()


def test_shared_dir_gets_the_marker_and_a_foreign_one_is_left_alone(
    set_host: Cluster, tmp_path: Path
) -> None:
    marker = (set_host.shared / ".kohakuriver-cluster").read_text()
    assert marker.strip()
    with running_cluster(tmp_path, SHARED_DIR=str(set_host.shared), AUTH_ENABLED=False) as other:
        faults = other.client.get("/readyz").json()["faults"]
        assert any("another cluster" in fault["message"] for fault in faults)
    assert (set_host.shared / ".kohakuriver-cluster").read_text() == marker


def test_db_file(set_host: Cluster) -> None:
    assert Path(str(set_host.host_settings["DB_FILE"])).stat().st_size > 0


def test_container_dir_and_default_container_name(set_host: Cluster) -> None:
    assert list(set_host.api("GET", "/api/docker/list")) == ["kr-default"]


def test_host_log_file_and_log_level(set_host: Cluster, tmp_path: Path) -> None:
    text = (set_host.root / "host-file.log").read_text()
    assert '"level": "info"' not in "".join(
        line for line in text.splitlines() if "kohakuriver.audit" not in line
    )
    with running_cluster(tmp_path, HOST_LOG_FILE=str(tmp_path / "file.log")) as plain:
        assert "host_started" in (tmp_path / "file.log").read_text()
        assert plain.host is not None
        assert "host_started" in plain.host.tail()


def test_auth_enabled(set_host: Cluster, tmp_path: Path) -> None:
    import httpx2

    assert httpx2.get(f"{set_host.url}/api/nodes", trust_env=False).status_code == 200
    with running_cluster(tmp_path) as guarded:
        assert httpx2.get(f"{guarded.url}/api/nodes", trust_env=False).status_code == 401
        token_file = guarded.host_home / ".kohakuriver" / "admin_token.json"
        assert token_file.stat().st_mode & 0o077 == 0
        assert guarded.cli("node", "list").returncode == 0


@pytest.mark.root
def test_heartbeat_timeout_factor_and_cleanup_check_interval_seconds(tmp_path: Path) -> None:
    with running_cluster(tmp_path, HEARTBEAT_TIMEOUT_FACTOR=2, CLEANUP_CHECK_INTERVAL_SECONDS=1) as cluster:
        runner = cluster.add_runner("kr-falls-silent")
        runner.end()
        began = time.monotonic()
        cluster.await_node("kr-falls-silent", "offline", seconds=15)
        assert time.monotonic() - began < 10  # the default of 6 beats would still count it as there


def test_host_reachable_address_is_what_a_new_node_is_told(tmp_path: Path) -> None:
    with running_cluster(tmp_path, HOST_REACHABLE_ADDRESS="cluster.example") as cluster:
        answer = cluster.api("POST", "/api/nodes/join-tokens", json={})
        assert (answer["host_address"], answer["host_port"]) == ("cluster.example", cluster.port)


def test_db_url_is_refused_by_a_sentence(tmp_path: Path) -> None:
    config = tmp_path / "host.py"
    write_config(
        config,
        {
            "HOST_PORT": free_port(),
            "SHARED_DIR": str(tmp_path / "shared"),
            "DB_FILE": str(tmp_path / "x.db"),
            "DB_URL": "postgresql://kr:secret@db.example/kr",
        },
    )
    ended = _exit_of(config, tmp_path / "home")
    assert ended.returncode == 1
    assert b"DB_URL" in ended.stderr
    assert b"secret" not in ended.stderr
    wait_for(lambda: not (tmp_path / "x.db").exists(), "nothing to be made", 1)


def _submitted_until_refused(cluster: Cluster, environment: dict[str, str]) -> tuple[list[str], str]:
    """Ids of what was taken in, and why no more was. Nothing starts, for there is no node."""
    taken: list[str] = []
    body = {"command": "true", "env_vars": environment}
    for _ in range(100):
        answer = cluster.client.post("/api/submit", json=body)
        if answer.status_code != 202:
            assert answer.status_code == 429
            return taken, answer.json()["detail"]
        taken += answer.json()["task_ids"]
    raise AssertionError("100 tasks were taken in")


def test_max_waiting_tasks_per_user(set_host: Cluster) -> None:
    taken, reason = _submitted_until_refused(set_host, {})
    for task in taken:
        set_host.api("POST", f"/api/kill/{task}")
    assert len(taken) == 2 * 20  # with authentication off everybody is an administrator
    assert "MAX_WAITING_TASKS_PER_USER" in reason


def test_max_waiting_mib_per_user(set_host: Cluster) -> None:
    taken, reason = _submitted_until_refused(set_host, {f"V{index}": "x" * 100_000 for index in range(9)})
    for task in taken:
        set_host.api("POST", f"/api/kill/{task}")
    assert len(taken) == 20 * (1 << 20) // 900_700
    assert "MAX_WAITING_MIB_PER_USER" in reason
