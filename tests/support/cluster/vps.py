"""VPSs of a test's cluster: made by the command line, looked into through the engine."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kohakuriver.dockerapi.client import DockerApi
from support.cluster.cluster import Cluster
from support.machine.debian_tree import ssh_image


@contextmanager
def vps_on(cluster: Cluster, node: str, *options: str) -> Iterator[str]:
    """The id of a VPS that runs; killed, with its snapshots, at the end."""
    done = cluster.cli("vps", "create", "-t", node, "-o", "json", *options)
    assert done.returncode == 0, done.stderr
    task_id = str(json.loads(done.stdout)["task_id"])
    try:
        yield task_id
    finally:
        remove_vps(cluster, task_id)


@contextmanager
def vps_with_ssh(cluster: Cluster, node: str, **fields: str) -> Iterator[str]:
    """The id of a VPS that runs, of an image with sshd."""
    body = {"registry_image": asyncio.run(_ssh_image()), "target_hostname": node, **fields}
    task_id = str(cluster.api("POST", "/api/vps/create", json=body)["task_id"])
    try:
        cluster.await_state(task_id, "running")
        yield task_id
    finally:
        remove_vps(cluster, task_id)


async def _ssh_image() -> str:
    api = await DockerApi.connect()
    try:
        return await ssh_image(api)
    finally:
        await api.close()


def remove_vps(cluster: Cluster, task_id: str) -> None:
    cluster.client.delete(f"/api/vps/snapshots/{task_id}")
    if cluster.client.post(f"/api/kill/{task_id}").status_code == 202:
        cluster.finished(task_id)
    for image in snapshot_images(task_id):
        subprocess.run(["docker", "rmi", "-f", image], capture_output=True, check=False)


def vps(cluster: Cluster, *words: str) -> str:
    """What `kohakuriver vps …` prints; it must succeed."""
    done = cluster.cli("vps", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def snapshots(cluster: Cluster, task_id: str) -> list[dict[str, Any]]:
    return list(json.loads(vps(cluster, "snapshot", "list", task_id, "-o", "json")))


def inside(task_id: str, script: str) -> str:
    """What a shell script prints in the VPS."""
    argv = ["docker", "exec", container_name(task_id), "sh", "-c", script]
    return subprocess.run(argv, capture_output=True, check=True).stdout.decode()


def container_id(task_id: str) -> str | None:
    """The engine's id of the VPS's container, None if there is none."""
    return _inspected(task_id, "{{.Id}}")


def is_paused(task_id: str) -> bool:
    return _inspected(task_id, "{{.State.Paused}}") == "true"


def snapshot_images(task_id: str) -> list[str]:
    """Images of the VPS's snapshots that the engine has."""
    argv = ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", f"kohakuriver-snapshot/vps-{task_id}"]
    return subprocess.run(argv, capture_output=True, check=True).stdout.decode().split()


def container_name(task_id: str) -> str:
    return f"kohakuriver-vps-{task_id}"


def _inspected(task_id: str, template: str) -> str | None:
    argv = ["docker", "inspect", "--format", template, container_name(task_id)]
    done = subprocess.run(argv, capture_output=True, check=False)
    return None if done.returncode else done.stdout.decode().strip()
