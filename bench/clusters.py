"""Clusters to measure: those of the tests, with an environment of their own that needs no registry."""

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.seeding import Seed, seed_store
from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import remove_image, save_image
from kohakuriver.models.errors import KohakuRiverError
from kohakuriver.models.names import environment_image
from support.cluster.cluster import BIN, Cluster
from support.engines.static_images import busybox_tree, import_bytes
from support.machine.debian_tree import ssh_image

NODE = f"kr-bench-node-{os.getpid()}"
"""Another run's on the same engine has another name, since each removes at its end what has its own."""


@contextlib.contextmanager
def host_alone(seed: Seed | None = None) -> Iterator[Cluster]:
    """A host without engine work: its default environment has a file already, which nobody opens.

    With a seed its store holds that before it starts.
    """
    root = Path(tempfile.mkdtemp(prefix="kr-bench-"))
    cluster = Cluster(root)
    try:
        cluster.containers.mkdir(parents=True)
        (cluster.containers / f"kohakuriver-base-{int(time.time())}.tar").touch()
        if seed is not None:
            seed_store(root / "state" / "kohakuriver.db", seed)
        cluster.start_host()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def real_cluster(*, programs: Path = BIN, **runner_settings: Any) -> Iterator[tuple[Cluster, str]]:
    """Host and one runner on the machine's engine, and the image that tasks run, present on the node."""
    root = Path(tempfile.mkdtemp(prefix="kr-bench-"))
    cluster = Cluster(root, programs=programs)
    environment = f"kr-bench-{os.getpid()}"
    try:
        cluster.containers.mkdir(parents=True)
        asyncio.run(_make_environment(cluster.containers, environment))
        cluster.start_host(DEFAULT_CONTAINER_NAME=environment)
        cluster.add_runner(NODE, **runner_settings)
        first = cluster.finished(cluster.submit("true"))
        if first["status"] != "completed":
            raise RuntimeError(f"the first task has failed: {first['error_message']}")
        yield cluster, environment_image(environment)
    finally:
        cluster.stop()
        asyncio.run(_remove_environment(environment))
        shutil.rmtree(root, ignore_errors=True)


async def vps_image() -> str:
    """The image of a Debian system with sshd, there on the machine's engine."""
    api = await DockerApi.connect()
    try:
        return await ssh_image(api)
    finally:
        await api.close()


async def _make_environment(folder: Path, name: str) -> None:
    """Write a tarball of a static busybox; the runner loads it as it would any other."""
    api = await DockerApi.connect()
    reference = environment_image(name)
    try:
        applets = ("sh", "true", "sleep", "cat", "echo")
        await import_bytes(api, busybox_tree(applets=applets), reference, 'CMD ["sh"]')
        await save_image(api, [reference], folder / f"{name}-{int(time.time())}.tar")
        await remove_image(api, reference)
    finally:
        await api.close()


async def _remove_environment(name: str) -> None:
    api = await DockerApi.connect()
    try:
        repository = environment_image(name).rsplit(":", 1)[0]
        for row in await api.json("GET", "images/json"):
            for tag in row.get("RepoTags") or ():
                if tag.startswith(repository + ":"):
                    with contextlib.suppress(KohakuRiverError):
                        await remove_image(api, tag, force=True)
    finally:
        await api.close()
