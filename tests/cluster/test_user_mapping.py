"""A whole runner whose engine maps users (`userns-remap`): tasks, a VPS with SSH, files, snapshots."""

import asyncio
import json
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kohakuriver.dockerapi.client import DockerApi
from support.clients.vps_sshd import make_key, public_key_of
from support.cluster.cluster import Cluster, Daemon, in_uts_namespace, wait_for
from support.engines.private_docker import DockerDaemon, remapping_daemon
from support.machine.debian_tree import SSH_IMAGE, ssh_image

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.xdist_group("user_mapping"),
    pytest.mark.timeout(300),
]
NODE = "kr-mapped"
FIRST = 200_000
USER = pwd.getpwnam("games")


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerDaemon]:
    with remapping_daemon(FIRST) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def mapped(engine: DockerDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A runner that sees the same mounts as its engine."""
    cluster = Cluster(tmp_path_factory.mktemp("mapped"))
    try:
        cluster.start_host()
        config = cluster.runner_config(
            NODE, JOIN_TOKEN=cluster.join_token(), RUNNER_USER=USER.pw_name, LOCAL_IMAGES=[SSH_IMAGE]
        )
        enter = ["nsenter", "--target", str(engine.place.namespaces.pid), "--mount", "--"]
        argv = [*enter, *in_uts_namespace(NODE, config)]
        daemon = Daemon(NODE, cluster.root / f"{NODE}-home", argv, {"DOCKER_HOST": engine.url})
        cluster.runners[NODE] = daemon
        daemon.start()
        cluster.await_node(NODE)
        yield cluster
    finally:
        cluster.stop()


def notices(cluster: Cluster) -> str:
    return " ".join(cluster.listed_nodes()[0]["notices"])


def told(cluster: Cluster, script: str, **fields: object) -> str:
    task_id = cluster.submit("sh", "-c", script, **fields)
    record = cluster.finished(task_id)
    assert record["status"] == "completed", (record["error_message"], cluster.output(task_id, "stderr"))
    return cluster.output(task_id).decode()


def test_the_node_is_fit_and_says_what_that_means_for_shared_storage(mapped: Cluster) -> None:
    wait_for(lambda: f"user N of tasks and VPSs is user {FIRST} + N" in notices(mapped), "the notice")
    wait_for(lambda: mapped.listed_nodes()[0]["faults"] == [], "the node to be fit")
    shared = mapped.shared / "shared_data"
    shared.chmod(0o755)
    try:
        mapped.runners[NODE].end()
        mapped.runners[NODE].start()
        mapped.await_node(NODE)
        wait_for(lambda: f"cannot write to {shared}" in notices(mapped), "the notice of the closed folder")
        assert f"chmod 1777 {shared}" in notices(mapped)
    finally:
        shared.chmod(0o1777)


def test_a_task_is_its_user_and_can_write_where_it_should(mapped: Cluster) -> None:
    script = (
        "whoami; id -u; pwd; echo s > /shared/of-task; echo l > /local_temp/of-task; echo h > ~/x; cat ~/x"
    )
    assert told(mapped, script).splitlines() == [USER.pw_name, str(USER.pw_uid), "/shared", "h"]
    for path in (mapped.shared / "shared_data", mapped.root / f"{NODE}-temp/workloads/data"):
        facts = (path / "of-task").stat()
        assert (facts.st_uid, facts.st_gid) == (FIRST + USER.pw_uid, FIRST + USER.pw_gid)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"privileged": True}, "maps users (userns-remap)"),
        ({"ipc": "host"}, "maps users (userns-remap)"),
        ({"ulimits": ["memlock=-1"]}, "ask for less with --ulimit"),
        ({"devices": ["/dev/null:/dev/other"]}, "a device cannot be given here"),
    ],
)
def test_what_such_an_engine_does_not_do_is_refused_with_a_sentence(
    mapped: Cluster, asked: dict[str, object], told: str
) -> None:
    for _ in range(3):  # more often than a node may fail by its own doing
        record = mapped.finished(mapped.submit("true", **asked))
        assert record["status"] == "failed"
        assert told in record["error_message"]
    assert mapped.listed_nodes()[0]["faults"] == []


async def _image(url: str) -> str:
    api = await DockerApi.connect(url)
    try:
        return await ssh_image(api)
    finally:
        await api.close()


def test_a_vps_with_ssh_and_files_lives_on_over_a_stop(
    mapped: Cluster, engine: DockerDaemon, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "key")
    body = {"registry_image": asyncio.run(_image(engine.url)), "target_hostname": NODE}
    made = mapped.api("POST", "/api/vps/create", json={**body, "ssh_public_key": public_key_of(key)})
    lab = str(made["task_id"])
    try:
        mapped.await_state(lab, "running")
        script = "id -u; echo 10.9.9.9 db >> /etc/hosts; echo kept > /srv/kept; echo s > /shared/of-vps"
        assert in_vps(mapped, lab, key, script) == "0\n"
        assert (mapped.shared / "shared_data/of-vps").stat().st_uid == FIRST
        copy_both_ways(mapped, lab, tmp_path)
        for word in ("stop", "restart"):
            done = mapped.cli("vps", word, lab)
            assert done.returncode == 0, done.stderr
        script = "cat /srv/kept; tail -n 1 /etc/hosts; stat -c %u:%g:%b /srv/disk.img /srv/small"
        kept, hosts, disk, small = in_vps(mapped, lab, key, script).splitlines()
        assert (kept, hosts, small.rpartition(":")[0]) == ("kept", "10.9.9.9 db", "0:0")
        assert disk.startswith("0:0:")
        assert int(disk.rpartition(":")[2]) * 512 < 1 << 20
    finally:
        mapped.client.delete(f"/api/vps/snapshots/{lab}")
        mapped.client.post(f"/api/kill/{lab}")
        mapped.finished(lab)


def in_vps(cluster: Cluster, task_id: str, key: Path, script: str) -> str:
    done = cluster.cli("ssh", "-i", str(key), task_id, script)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def copy_both_ways(cluster: Cluster, task_id: str, folder: Path) -> None:
    """A sparse file and a small one; what is shown as theirs are users of the VPS."""
    (folder / "small").write_text("small")
    (folder / "disk.img").write_bytes(b"begin")
    os.truncate(folder / "disk.img", 64 << 20)
    for name in ("small", "disk.img"):
        done = cluster.cli("cp", str(folder / name), f"{task_id}:/srv/")
        assert done.returncode == 0, done.stderr
        done = cluster.cli("cp", f"{task_id}:/srv/{name}", str(folder / "back"))
        assert done.returncode == 0, done.stderr
        subprocess.run(["cmp", folder / name, folder / "back"], check=True)
    stat = cluster.api("GET", f"/api/fs/{task_id}/stat", params={"path": "/srv/small"})
    assert (stat["uid"], stat["gid"], stat["owner"]) == (0, 0, "0")
    listed = cluster.api("GET", f"/api/fs/{task_id}/list", params={"path": "/srv"})
    assert {entry["uid"] for entry in listed["entries"]} == {0}, json.dumps(listed)
