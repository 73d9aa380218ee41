"""One test per runner setting that takes effect while a runner runs; each looks at a contrast."""

import json
import os
import socket
import subprocess
import time
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.confirmed_host import confirm_host
from kohakuriver.runner.local_temp import data_folder
from settings.conftest import Contrast, run_once, sandboxes_of
from support.cluster.cluster import (
    BIN,
    Cluster,
    Daemon,
    free_port,
    in_uts_namespace,
    remove_network,
    wait_for,
)

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("settings"),
    pytest.mark.timeout(300),
]


def _listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0


def test_runner_bind_ip(contrast: Contrast) -> None:
    port = contrast.config("kr-set")["RUNNER_PORT"]
    assert _listens("127.0.0.1", port)
    assert not _listens("127.0.0.2", port)
    assert "there is nothing here for workloads" in contrast.asked_by_task("kr-set", "/api/orders")
    assert _listens(contrast.config("kr-set")["DOCKER_NETWORK_GATEWAY"], port)


def test_runner_port(contrast: Contrast) -> None:
    assert contrast.node("kr-set")["url"].endswith(f":{contrast.config('kr-set')['RUNNER_PORT']}")
    taken = contrast.cluster.runner_config("kr-taken", RUNNER_PORT=contrast.config("kr-set")["RUNNER_PORT"])
    ended = run_once(taken, "kr-taken")
    assert ended.returncode == 1
    assert str(contrast.config("kr-set")["RUNNER_PORT"]).encode() in ended.stderr


def test_host_address_and_host_port(contrast: Contrast) -> None:
    assert contrast.node("kr-set")["status"] == "online"
    url = f"http://127.0.0.1:{contrast.cluster.port}"
    contrast.cluster.add_runner("kr-by-url", HOST_ADDRESS=url, HOST_PORT=1)
    contrast.cluster.runners["kr-by-url"].end()
    elsewhere = contrast.cluster.add_runner("kr-astray", join=False, HOST_PORT=free_port())
    wait_for(
        lambda: "host_not_reached" in elsewhere.tail() or "not answer" in elsewhere.tail(),
        "a sentence in the log",
    )
    assert elsewhere.process is not None
    assert elsewhere.process.poll() is None
    elsewhere.end()


def test_shared_dir(contrast: Contrast, tmp_path: Path) -> None:
    assert contrast.node("kr-plain")["shared_storage"] == "same"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / ".kohakuriver-cluster").write_text("another\n")
    contrast.cluster.add_runner("kr-foreign", SHARED_DIR=str(foreign))
    assert contrast.node("kr-foreign")["shared_storage"] == "foreign"
    waiting = contrast.cluster.submit("true", targets=["kr-foreign"])

    def explained() -> bool:
        record = contrast.cluster.status(waiting)
        assert record["status"] == "pending"
        return "shared storage" in record["pending_reasons"][0]["reason"]

    wait_for(explained, "the reason why it waits")
    contrast.cluster.client.post(f"/api/kill/{waiting}")
    contrast.cluster.runners["kr-foreign"].end()


def test_local_temp_dir(contrast: Contrast) -> None:
    contrast.run("kr-plain", "echo here > /local_temp/proof")
    assert (data_folder(contrast.root / "kr-plain-temp") / "proof").read_text() == "here\n"
    assert not (data_folder(contrast.root / "kr-set-temp") / "proof").exists()


def test_container_tar_dir(contrast: Contrast) -> None:
    record, _ = contrast.run("kr-set", "true", container_name="kr-elsewhere")
    assert record["status"] == "completed"
    record, _ = contrast.run("kr-plain", "true", container_name="kr-not-anywhere")
    assert record["status"] == "failed"
    assert "kr-not-anywhere" in str(record["error_message"])


def test_numactl_path(contrast: Contrast, tmp_path: Path) -> None:
    program = tmp_path / "numactl"
    program.write_text(
        "#!/bin/sh\n"
        "echo 'available: 2 nodes (0-1)'\n"
        "echo 'node 0 cpus: 0'\necho 'node 0 size: 1000 MB'\necho 'node 0 free: 900 MB'\n"
        "echo 'node 1 cpus: 1'\necho 'node 1 size: 1000 MB'\necho 'node 1 free: 900 MB'\n"
    )
    program.chmod(0o755)
    contrast.cluster.add_runner("kr-numa", NUMACTL_PATH=str(program))
    assert list(contrast.node("kr-numa")["numa_topology"]) == ["0", "1"]
    assert list(contrast.node("kr-plain")["numa_topology"]) == ["0"]
    task_id = contrast.cluster.submit(
        "sh",
        "-c",
        "grep Cpus_allowed_list /proc/self/status; echo $KOHAKURIVER_TARGET_NUMA_NODE",
        targets=["kr-numa:0"],
    )
    assert contrast.cluster.finished(task_id)["status"] == "completed"
    assert contrast.cluster.output(task_id).decode().split() == ["Cpus_allowed_list:", "0", "0"]
    contrast.cluster.runners["kr-numa"].end()


def test_runner_log_file(contrast: Contrast) -> None:
    assert "runner_started" in (contrast.root / "kr-set-file.log").read_text()
    assert list(contrast.root.glob("kr-plain*.log")) == []


def test_heartbeat_interval_seconds(contrast: Contrast) -> None:
    def beats(name: str, seconds: float) -> int:
        seen = set()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            seen.add(contrast.node(name)["last_heartbeat"])
            time.sleep(0.1)
        return len(seen) - 1

    assert beats("kr-plain", 6) > beats("kr-set", 6) >= 1


def test_resource_check_interval_seconds(contrast: Contrast) -> None:
    for name, seconds in (("kr-plain", 1.0), ("kr-set", 2.0)):
        times = wait_for(partial(_sample_times, contrast, name), f"samples of {name}", 40)
        gaps = sorted(later - earlier for earlier, later in pairwise(times))
        # (samples are shown by the second, so two may share one and leave a longer gap)
        assert abs(gaps[0] - seconds) < 0.5, (name, gaps)


def _sample_times(contrast: Contrast, name: str) -> list[float] | None:
    """Moments of a node's samples in the health history, once there are enough of them."""
    rows = contrast.cluster.api("GET", "/api/health")["nodes"]
    found = {row["at"] for second in rows for row in second if row["hostname"] == name}
    times = sorted(datetime.fromisoformat(text).timestamp() for text in found)
    return times if len(times) > 4 else None


def test_runner_user(contrast: Contrast) -> None:
    _, plain = contrast.run("kr-plain", "id -u; touch /shared/plain-file")
    _, other = contrast.run("kr-set", "id -u; touch /shared/set-file")
    assert (plain.strip(), other.strip()) == ("0", "65534")
    assert (contrast.cluster.shared / "shared_data" / "set-file").stat().st_uid == 65534


def test_default_working_dir(contrast: Contrast) -> None:
    assert contrast.run("kr-plain", "pwd")[1] == "/shared\n"
    assert contrast.run("kr-set", "pwd")[1] == "/local_temp\n"


def test_tasks_privileged(contrast: Contrast) -> None:
    script = "grep CapBnd /proc/self/status"
    plain, privileged = (int(contrast.run(node, script)[1].split()[1], 16) for node in ("kr-plain", "kr-set"))
    net_admin = 1 << 12
    assert not plain & net_admin
    assert privileged & net_admin


def test_additional_mounts(contrast: Contrast) -> None:
    assert contrast.run("kr-set", "cat /mounted/fact; touch /mounted/new || echo read-only")[1] == (
        "from the node\nread-only\n"
    )
    assert contrast.run("kr-plain", "ls /mounted || echo none")[1] == "none\n"


def test_docker_network_name_subnet_and_gateway(contrast: Contrast) -> None:
    config = contrast.config("kr-plain")
    shown = subprocess.run(
        ["docker", "network", "inspect", config["DOCKER_NETWORK_NAME"]], capture_output=True, check=True
    )
    (network,) = json.loads(shown.stdout)
    assert network["IPAM"]["Config"] == [
        {"Subnet": config["DOCKER_NETWORK_SUBNET"], "Gateway": config["DOCKER_NETWORK_GATEWAY"]}
    ]
    _, route = contrast.run("kr-plain", "ip route show default")
    assert config["DOCKER_NETWORK_GATEWAY"] in route


def test_workload_egress_deny(contrast: Contrast) -> None:
    """The runner's port, on an address at which it does not listen: what answers there is this test."""

    def connects(node: str) -> bool:
        address, port = _address_of_engine(), contrast.config(node)["RUNNER_PORT"]
        with socket.create_server((address, port)):
            record, _ = contrast.run(node, f"timeout 20 nc {address} {port} -e /bin/true")
        assert record["exit_code"] in (0, 1), "refused or accepted, and not left to wait"
        return record["exit_code"] == 0

    assert connects("kr-set")
    assert not connects("kr-plain")


def _address_of_engine() -> str:
    """One of the node's addresses that no runner has for its gateway."""
    shown = subprocess.run(["ip", "-4", "-o", "addr", "show", "docker0"], capture_output=True, check=True)
    return shown.stdout.decode().split()[3].partition("/")[0]


def test_sandbox_pool_size(contrast: Contrast) -> None:
    wait_for(lambda: len(sandboxes_of("kr-plain")) == 2, "two sandboxes to be ready")
    contrast.run("kr-set", "true")
    wait_for(lambda: not sandboxes_of("kr-set"), "no sandbox to be kept")


def test_log_level(contrast: Contrast) -> None:
    contrast.run("kr-set", "true")
    contrast.run("kr-plain", "true")
    wait_for(
        lambda: '"level": "debug"' in (contrast.root / "kr-set-file.log").read_text(), "a line of debugging"
    )
    assert '"level": "debug"' not in contrast.cluster.runners["kr-plain"].log.read_text()


def test_join_token(contrast: Contrast) -> None:
    token = contrast.cluster.join_token()
    contrast.cluster.add_runner("kr-joins", JOIN_TOKEN=token)
    contrast.cluster.runners["kr-joins"].end()
    contrast.cluster.add_runner("kr-late", join=False, JOIN_TOKEN=token)
    late = contrast.cluster.runners["kr-late"]
    wait_for(lambda: "used by another node" in late.tail(), "the refusal in the log")
    late.end()


def test_host_fingerprint(contrast: Contrast) -> None:
    cluster = contrast.cluster
    cluster.add_runner("kr-known", join=False, HOST_FINGERPRINT=cluster.fingerprint)
    stranger = cluster.add_runner("kr-stranger", join=False)
    for name in ("kr-known", "kr-stranger"):
        cluster.await_node(name, "pending")
        cluster.api("POST", f"/api/nodes/{name}/approve", json={})
    cluster.await_node("kr-known")
    wait_for(lambda: "which nobody has confirmed" in stranger.tail(), "the reason in the log")
    assert not list(stranger.home.glob(".kohakuriver/runner/*/host.json")), "it obeys nobody yet"
    _trust(cluster, "kr-stranger")
    cluster.await_node("kr-stranger")
    for name in ("kr-known", "kr-stranger"):
        cluster.runners[name].end()


def _trust(cluster: Cluster, name: str) -> None:
    """Confirm the host's key to a runner, as its administrator does on its machine."""
    trust = [str(BIN / "kohakuriver"), "runner", "trust", cluster.fingerprint]
    subprocess.run(
        ["unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$0" "$@"', *trust],
        env={**os.environ, "HOME": str(cluster.runners[name].home)},
        check=True,
    )


def test_a_file_with_ten_faults_names_all_ten_and_starts_nothing(tmp_path: Path) -> None:
    faulty = {
        "RUNNER_PORT": 0,
        "RUNNER_BIND_IP": "everywhere",
        "HEARTBEAT_INTERVAL_SECONDS": "5",
        "RUNNER_USER": "nobody-of-this-name",
        "TASKS_PRIVILEGED": 1,
        "ADDITIONAL_MOUNTS": ["relative:/x"],
        "DOCKER_NETWORK_GATEWAY": "10.0.0.1",
        "VM_DEFAULT_DISK_SIZE": "big",
        "OVERLAY_MTU": 9,
        "LOG_LEVEL": "loud",
    }
    path = tmp_path / "faulty.py"
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in faulty.items()))
    home = tmp_path / "home"
    home.mkdir()
    ended = subprocess.run(
        [str(BIN / "kohakuriver.runner"), "--config", str(path)],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 78
    for name in faulty:
        assert name.encode() in ended.stderr
    assert list(home.iterdir()) == []


def test_docker_image_sync_timeout(contrast: Contrast, registry_that_hangs: str) -> None:
    contrast.cluster.add_runner("kr-hasty", DOCKER_IMAGE_SYNC_TIMEOUT=1)
    record = contrast.cluster.finished(
        contrast.cluster.submit("true", targets=["kr-hasty"], registry_image=f"{registry_that_hangs}/x:1")
    )
    assert record["status"] == "failed"
    assert "DOCKER_IMAGE_SYNC_TIMEOUT" in record["error_message"]
    contrast.cluster.runners["kr-hasty"].end()


def test_overlay_settings_that_are_not_the_hosts(contrast: Contrast) -> None:
    runner = contrast.cluster.add_runner("kr-apart", OVERLAY_ENABLED=True, OVERLAY_MTU=1400)
    until = "until both are set alike it gets no work that needs the overlay"
    told = [
        f"its OVERLAY_ENABLED is True, and that of the host is False; {until}",
        f"its OVERLAY_MTU is 1400, and that of the host is 1450; {until}",
    ]
    try:
        assert [each for each in contrast.node("kr-apart")["notices"] if "OVERLAY" in each] == told
        assert all(each in runner.tail() for each in told)
        shown = contrast.cluster.cli("node", "status", "kr-apart").stdout.decode()
        assert all(each in " ".join(shown.split()) for each in told)
        task = contrast.cluster.submit("true", targets=["kr-apart"])
        assert contrast.cluster.finished(task)["exit_code"] == 0
        assert not [each for each in contrast.node("kr-plain")["notices"] if "OVERLAY" in each]
    finally:
        runner.end()


@pytest.fixture
def registry_that_hangs() -> Any:
    """Address of something that takes connections and never answers."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        yield f"127.0.0.1:{silent.getsockname()[1]}"


def test_the_documents_example_starts_a_runner(contrast: Contrast, tmp_path: Path) -> None:
    text = (Path(__file__).with_name("runner-configuration.md")).read_text()
    example = text.split("## Example Configuration", 1)[1].split("```python\n", 1)[1].split("```", 1)[0]
    data = tmp_path / "data"
    data.mkdir()
    cluster = contrast.cluster
    changes = {
        '"192.168.1.100"': '"127.0.0.1"',
        "HOST_PORT: int = 8000": f"HOST_PORT: int = {cluster.port}",
        "RUNNER_PORT: int = 8001": f"RUNNER_PORT: int = {free_port()}",
        "/mnt/cluster-share": str(cluster.shared),
        "/tmp/kohakuriver": str(tmp_path / "local-temp"),
        "/data:/data": f"{data}:/data",
        "/var/lib/kohakuriver": str(tmp_path / "vm"),
    }
    for before, after in changes.items():
        assert before in example
        example = example.replace(before, after)
    # The default network may be that of a cluster which is used on this machine.
    network, subnet = f"kr-test-example-{cluster.port}", cluster.free_subnet()
    example += f'\nDOCKER_NETWORK_NAME = "{network}"\nDOCKER_NETWORK_SUBNET = "{subnet}.0/24"\n'
    example += f'DOCKER_NETWORK_GATEWAY = "{subnet}.1"\n'
    cluster.runners["kr-example"] = _example_runner(cluster, tmp_path, example)
    try:
        node = cluster.await_node("kr-example", "pending")
        # The example has no join token: somebody vouches on the node for the host, and there for the node.
        confirm_host(tmp_path / "home" / ".kohakuriver" / "runner" / "kr-example", cluster.fingerprint)
        cluster.api("POST", "/api/nodes/kr-example/approve", json={"fingerprint": node["fingerprint"]})
        _trust(cluster, "kr-example")
        cluster.await_node("kr-example")
        assert cluster.finished(cluster.submit("true", targets=["kr-example"]))["status"] == "completed"
    finally:
        cluster.runners["kr-example"].end()
        remove_network(network)


def _example_runner(cluster: Cluster, folder: Path, text: str) -> Any:
    config = folder / "runner_config.py"
    config.write_text(text)
    daemon = Daemon("kr-example", folder / "home", in_uts_namespace("kr-example", config))
    daemon.start()
    return daemon
