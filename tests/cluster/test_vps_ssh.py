"""SSH into a real VPS: client, gateway of the host, runner, sshd in the container."""

import os
import subprocess
from pathlib import Path

import pytest

from support.clients.vps_sshd import make_key, public_key_of
from support.cluster.cluster import BIN, Cluster, wait_for
from support.cluster.vps import vps_with_ssh

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(300),
]


def stock_ssh(cluster: Cluster, config: Path, *arguments: str) -> list[str]:
    """Words of a stock ssh that knows nothing but the configuration of `kohakuriver ssh config`."""
    written = cluster.cli("ssh", "config", "-i", str(config.with_name("key")))
    assert written.returncode == 0, written.stderr
    config.write_bytes(b"BatchMode yes\n" + written.stdout)
    return ["ssh", "-F", str(config), *arguments]


def test_stock_ssh_and_the_command_line_reach_a_vps_until_it_is_stopped(
    cluster: Cluster, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "key")
    config = tmp_path / "config"
    with vps_with_ssh(cluster, "kr-n1", ssh_public_key=public_key_of(key)) as task_id:
        told = cluster.cli("ssh", "-i", str(key), task_id, "cat /proc/1/comm; exit 5")
        assert told.returncode == 5, told.stderr
        argv = stock_ssh(cluster, config, f"vps-{task_id}")
        process = subprocess.Popen(
            [*argv, "echo in; exec sleep 300"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"in\n"
            cluster.api("POST", f"/api/vps/stop/{task_id}")
            assert process.wait(60) == 255
        finally:
            process.kill()
            process.communicate()
        cluster.await_state(task_id, "stopped")
        refused = subprocess.run([*argv, "true"], capture_output=True, timeout=60, check=False)
        assert b"no VPS of that name or id runs" in refused.stderr
        cluster.api("POST", f"/api/vps/restart/{task_id}")
        cluster.await_state(task_id, "running")
        # The host key is the one of before, or this configuration, which is strict about it, would not do.
        again = subprocess.run([*argv, "echo back"], capture_output=True, timeout=60, check=False)
        assert again.stdout == b"back\n", again.stderr


def test_a_vps_without_keys_lets_in_who_may_use_it_and_asks_for_nothing_further(
    cluster: Cluster, tmp_path: Path
) -> None:
    make_key(tmp_path / "key")
    with vps_with_ssh(cluster, "kr-n1", ssh_key_mode="none") as task_id:
        argv = stock_ssh(cluster, tmp_path / "config", f"vps-{task_id}", "echo in")
        environment = {**os.environ, "HOME": str(cluster.host_home)}
        done = subprocess.run(argv, env=environment, capture_output=True, timeout=60, check=False)
        assert done.stdout == b"in\n", done.stderr
        command = [str(BIN / "kohakuriver"), "--host", cluster.url, "ssh", task_id, "true"]
        nobody = {**environment, "HOME": str(tmp_path), "KOHAKURIVER_TOKEN": "kr_made-up"}
        refused = subprocess.run(command, env=nobody, capture_output=True, timeout=60, check=False)
        assert refused.returncode == 4


def test_a_vps_is_reached_again_after_its_runner_was_restarted(cluster: Cluster, tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")
    with vps_with_ssh(cluster, "kr-n1", ssh_public_key=public_key_of(key)) as task_id:
        argv = stock_ssh(cluster, tmp_path / "config", f"vps-{task_id}")
        cluster.runners["kr-n1"].end()
        refused = subprocess.run([*argv, "true"], capture_output=True, timeout=60, check=False)
        assert refused.returncode == 255
        assert b"kr-n1" in refused.stderr
        cluster.runners["kr-n1"].start()

        def reached() -> bool:
            done = subprocess.run([*argv, "true"], capture_output=True, timeout=60, check=False)
            return done.returncode == 0

        wait_for(reached, "the VPS to be reached again")
