"""Somebody else's disk by the name of an image (line 16 of the threats), with a cluster and a real engine.

A VPS holds a secret and has a snapshot of it, which an engine gives to whoever names it. No spelling of
its name or id is taken, and an image that is here without having been pulled for tasks serves no task.
"""

import asyncio
import contextlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import remove_image, save_image, tag_image
from kohakuriver.models.errors import EngineFault, KohakuRiverError, NotFound
from kohakuriver.runner.engines.contract.spec import ImageChoice
from support.cluster.cluster import Cluster
from support.cluster.vps import container_name, inside, snapshot_images, vps, vps_on
from support.engines.image_records import id_of, ignore, node_images
from support.engines.labs import docker_lab
from support.engines.static_images import busybox_tree, import_bytes, tree

pytest_plugins = ["support.engines.image_fixtures"]
pytestmark = [pytest.mark.docker, pytest.mark.root, pytest.mark.timeout(300)]

SECRET = "river-secret-4711"
PRIVATE = "127.0.0.1:9/private/build:1"
"""Of an administrator; nothing answers where it could be pulled from."""


@dataclass(frozen=True)
class Victim:
    cluster: Cluster
    task_id: str
    snapshot: str
    image_id: str
    environment: str


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    cluster = Cluster(tmp_path_factory.mktemp("victim"))
    try:
        cluster.start_host()
        cluster.add_runner("kr-victim", DOCKER_IMAGE_SYNC_TIMEOUT=2)
        with vps_on(cluster, "kr-victim") as task_id:
            inside(task_id, f"echo {SECRET} > /secret")
            vps(cluster, "snapshot", "create", task_id)
            (snapshot,) = snapshot_images(task_id)
            environment = _id_of("kohakuriver/kohakuriver-base:base")
            yield Victim(cluster, task_id, snapshot, _id_of(snapshot), environment)
    finally:
        cluster.stop()


def _id_of(name: str) -> str:
    argv = ["docker", "image", "inspect", "--format", "{{.Id}}", name]
    return subprocess.run(argv, capture_output=True, check=True).stdout.decode().strip()


def _hex(victim: Victim) -> str:
    return victim.image_id.removeprefix("sha256:")


SPELLINGS: dict[str, Callable[[Victim], str]] = {
    "name": lambda victim: victim.snapshot,
    "with the registry": lambda victim: f"docker.io/{victim.snapshot}",
    "with its other name": lambda victim: f"index.docker.io/{victim.snapshot}",
    "with upper case": lambda victim: f"Docker.IO/{victim.snapshot}",
    "with a port": lambda victim: f"docker.io:443/{victim.snapshot}",
    "with a dot at the end": lambda victim: f"docker.io./{victim.snapshot}",
    "as of a library": lambda victim: f"library/{victim.snapshot}",
    "as local": lambda victim: f"localhost/{victim.snapshot}",
    "with a digest": lambda victim: f"{victim.snapshot}@{victim.image_id}",
    "id": lambda victim: victim.image_id,
    "bare id": _hex,
    "short id": lambda victim: _hex(victim)[:12],
    "odd id": lambda victim: _hex(victim)[:31],
    "short id with its kind": lambda victim: f"sha256:{_hex(victim)[:12]}",
    "a few digits with their kind": lambda victim: f"sha256:{_hex(victim)[:5]}",
    "environment": lambda _: "kohakuriver/kohakuriver-base:base",
    "sandboxes": lambda _: "docker.io/kohakuriver/sandbox",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_of_a_name_of_ours_is_an_image_of_a_registry(victim: Victim, spelling: str) -> None:
    image = SPELLINGS[spelling](victim)
    bodies: dict[str, dict[str, Any]] = {
        "/api/submit": {"command": "cat", "arguments": ["/secret"], "registry_image": image},
        "/api/vps/create": {"registry_image": image},
        "/api/docker/host/create": {"image_name": image, "container_name": "kr-stolen"},
    }
    for path, body in bodies.items():
        answer = victim.cluster.client.post(path, json=body)
        assert answer.status_code == 422, f"{path} took {image}: {answer.text}"
        assert "image" in answer.json()["detail"]


def test_a_runner_refuses_what_its_host_lets_through(victim: Victim, tmp_path: Path) -> None:
    async def scenario() -> None:
        api = await DockerApi.connect()
        try:
            images = node_images(api, tmp_path)
            for spelling in SPELLINGS.values():
                with pytest.raises(KohakuRiverError):
                    await images.ensure(ImageChoice(registry_image=spelling(victim)), ignore)
        finally:
            await api.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("disk", ["snapshot", "environment"])
def test_an_image_that_is_here_and_was_not_pulled_for_tasks_serves_none(victim: Victim, disk: str) -> None:
    source = victim.snapshot if disk == "snapshot" else victim.environment
    subprocess.run(["docker", "tag", source, PRIVATE], check=True)
    try:
        task_id = victim.cluster.submit("cat", "/secret", registry_image=PRIVATE)
        record = victim.cluster.finished(task_id)
        assert record["status"] == "failed"
        assert "was not pulled for tasks" in record["error_message"]
        assert "LOCAL_IMAGES" in record["error_message"]
        assert SECRET.encode() not in victim.cluster.output(task_id)
    finally:
        subprocess.run(["docker", "rmi", PRIVATE], capture_output=True, check=True)


def test_the_beginning_of_an_id_is_nothing_but_a_name(victim: Victim) -> None:
    """Too short to be told from a name, which an engine would complete to the id."""
    digits = next(_hex(victim)[:length] for length in range(4, 12) if not _hex(victim)[:length].isdigit())
    assert _id_of(digits) == victim.image_id
    task_id = victim.cluster.submit("cat", "/secret", registry_image=digits)
    assert victim.cluster.finished(task_id)["status"] == "failed"
    assert SECRET.encode() not in victim.cluster.output(task_id)


def test_a_vps_container_and_disk_make_no_environment(victim: Victim) -> None:
    name = container_name(victim.task_id)
    copy = f"{name}-copy"
    subprocess.run(
        ["docker", "create", "--name", copy, victim.snapshot, "x"], check=True, capture_output=True
    )
    subprocess.run(["docker", "tag", victim.snapshot, PRIVATE], check=True)
    try:
        for container in (name, copy):
            answer = victim.cluster.client.post(f"/api/docker/host/migrate/{container}")
            assert answer.status_code == 409, answer.text
        body = {"image_name": PRIVATE, "container_name": "kr-stolen"}
        assert victim.cluster.client.post("/api/docker/host/create", json=body).status_code == 403
    finally:
        subprocess.run(["docker", "rm", copy], capture_output=True, check=True)
        subprocess.run(["docker", "rmi", PRIVATE], capture_output=True, check=True)


@pytest.mark.anyio
async def test_what_was_pulled_is_used_until_something_else_has_its_name(
    api: DockerApi, environment: str, busybox: str, registry: str, tmp_path: Path
) -> None:
    reference = f"{registry}/lab/{environment}:3"
    repository, tag = reference.rsplit(":", 1)
    await tag_image(api, busybox, repository, tag)
    subprocess.run(["docker", "push", "--quiet", reference], check=True, capture_output=True)
    pulled = await id_of(api, reference)
    await remove_image(api, reference)
    choice = ImageChoice(registry_image=reference)
    said: list[str] = []
    assert (await node_images(api, tmp_path).ensure(choice, said.append)).id == pulled
    assert said[0] == f"pulling {reference}"
    # Another runner's life reads what the one before wrote down.
    said.clear()
    assert (await node_images(api, tmp_path).ensure(choice, said.append)).id == pulled
    assert said == []
    await import_bytes(api, tree({"planted": environment.encode()}), reference)
    planted = await id_of(api, reference)
    assert planted not in (None, pulled)
    assert (await node_images(api, tmp_path).ensure(choice, said.append)).id == pulled
    assert said[0] == f"pulling {reference}"
    await remove_image(api, str(planted))


@pytest.mark.anyio
@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b'{"a": 1}'])
async def test_a_damaged_record_lets_nothing_pass(
    api: DockerApi, busybox: str, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "pulled_images.json").write_bytes(content)
    await tag_image(api, busybox, *PRIVATE.rsplit(":", 1))
    try:
        with pytest.raises((EngineFault, NotFound), match="was not pulled"):
            await node_images(api, tmp_path).ensure(ImageChoice(registry_image=PRIVATE), ignore)
    finally:
        await remove_image(api, PRIVATE)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "label", ["kohakuriver.task_id=77", "kohakuriver.task_id=x", "kohakuriver.sandbox=true"]
)
async def test_labels_of_an_image_make_no_container_a_workload_or_a_sandbox(
    tmp_path: Path, label: str
) -> None:
    """A container that an administrator or the host makes of an image has the image's labels too."""
    async with docker_lab(tmp_path) as lab:
        reference = f"river-test/labels:{lab.node[-8:]}"
        ours = ("kohakuriver.managed=true", f"kohakuriver.node={lab.node}", "kohakuriver.attempt=9", label)
        await import_bytes(lab.api, busybox_tree(), reference, *(f"LABEL {text}" for text in ours))
        foreign = (await lab.api.json("POST", "containers/create", json={"Image": reference, "Cmd": ["x"]}))[
            "Id"
        ]
        try:
            assert await lab.engine.list_workloads() == []
            await lab.restart()
            assert await lab.engine.list_workloads() == []
            assert (await lab.api.json("GET", f"containers/{foreign}/json"))["Id"] == foreign
        finally:
            await lab.api.json("DELETE", f"containers/{foreign}")
            await remove_image(lab.api, reference)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "way", ["./manifest.json", "x/../manifest.json", "/manifest.json", "a/manifest.json"]
)
async def test_a_second_index_in_a_tarball_moves_no_tag_of_others(
    api: DockerApi, environment: str, busybox: str, tmp_path: Path, way: str
) -> None:
    """An engine unpacks the archive, so another spelling of the index's name would take its place."""
    theirs = f"{environment}-theirs:1"
    await import_bytes(api, tree({"theirs": b"x"}), theirs)
    before = await id_of(api, theirs)
    path = tmp_path / f"{environment}-5.tar"
    await save_image(api, [busybox], path)
    with tarfile.open(path) as archive:
        index = json.loads((archive.extractfile("manifest.json") or io.BytesIO()).read())
    index[0]["RepoTags"] = [theirs]
    content = json.dumps(index).encode()
    with tarfile.open(path, "a") as archive:
        if way == "a/manifest.json":
            link = tarfile.TarInfo("a")
            link.type, link.linkname = tarfile.SYMTYPE, "."
            archive.addfile(link)
        second = tarfile.TarInfo(way)
        second.size = len(content)
        archive.addfile(second, io.BytesIO(content))
    with contextlib.suppress(EngineFault):
        await node_images(api, tmp_path).ensure(ImageChoice(environment), ignore)
    assert await id_of(api, theirs) == before
