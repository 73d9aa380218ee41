"""Tarballs that the host exports: whole or not at all."""

import asyncio
import errno
import fcntl
import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kohakuriver.dockerapi import whole_disk
from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import inspect_image, tag_image
from kohakuriver.dockerapi.tarballs import Tarball
from kohakuriver.host.environments import service as service_module
from kohakuriver.host.environments import tarball_store
from kohakuriver.host.environments.engine_link import EngineLink
from kohakuriver.host.environments.environment_settings import EnvironmentSettings
from kohakuriver.host.environments.service import EnvironmentService
from kohakuriver.models.errors import (
    Conflict,
    EngineFault,
    NoCapacity,
    NotFound,
    Unavailable,
)
from kohakuriver.runner.engines.contract.spec import ImageChoice
from support.engines.environment_probes import run_in, status_of, wait_until
from support.engines.image_records import ignore, node_images, tags_of
from support.engines.static_images import busybox_tree, import_bytes, remove_container

pytest_plugins = ["support.engines.environment_fixtures"]
pytestmark = [pytest.mark.anyio, pytest.mark.docker]


async def test_an_exported_environment_runs_on_a_node_with_what_was_put_into_it(
    api: DockerApi,
    service: EnvironmentService,
    settings: EnvironmentSettings,
    environment: str,
    container: str,
) -> None:
    run_in(container, "echo tool > /tool")
    said: list[str] = []
    tarball = await service.create_tar(environment, said.append)
    assert tarball.path == settings.tar_dir / f"{environment}-{tarball.unix_time}.tar"
    assert tarball.path.stat().st_size == tarball.size_bytes
    assert [path.name for path in settings.tar_dir.iterdir()] == [tarball.path.name]
    assert said
    assert await status_of(service, environment) == "running"
    # The engine serves as host's and as node's here; without its tags the node must take the tarball.
    for tag in ("base", str(tarball.unix_time)):
        await api.json("DELETE", f"images/kohakuriver/{environment}:{tag}", params={"force": "true"})
    images = node_images(api, settings.tar_dir)
    reference = (await images.ensure(ImageChoice(environment), said.append)).id
    shown = subprocess.run(
        ["docker", "run", "--rm", reference, "cat", "/tool"], check=True, capture_output=True, text=True
    )
    assert shown.stdout == "tool\n"


async def test_a_runner_on_the_same_engine_has_a_new_export_already(
    api: DockerApi,
    service: EnvironmentService,
    settings: EnvironmentSettings,
    environment: str,
    container: str,
) -> None:
    await service.create_tar(environment)
    said: list[str] = []
    await node_images(api, settings.tar_dir).ensure(ImageChoice(environment), said.append)
    assert said == []


async def test_each_version_is_newer_than_all_before_it_whatever_the_clock_says(
    service: EnvironmentService, settings: EnvironmentSettings, environment: str, container: str
) -> None:
    future = int(time.time()) + 100_000
    settings.tar_dir.mkdir()
    (settings.tar_dir / f"{environment}-{future}.tar").write_bytes(b"old")
    versions = [(await service.create_tar(environment)).unix_time for _ in range(2)]
    assert versions == [future + 1, future + 2]
    listed = await service.inspect_tarballs(environment)
    assert [version.unix_time for version in listed.versions] == [future, future + 1, future + 2]
    assert listed.latest.unix_time == future + 2
    assert environment in [found.name for found in await service.list_tarballs()]


async def test_tarballs_are_deleted_by_environment_and_no_other(
    service: EnvironmentService, settings: EnvironmentSettings, environment: str
) -> None:
    settings.tar_dir.mkdir()
    for name in (f"{environment}-1.tar", f"{environment}-2.tar", f"{environment}-x-3.tar", "notes.txt"):
        (settings.tar_dir / name).write_text("")
    deleted = await service.delete_tarballs(environment)
    assert [version.unix_time for version in deleted.versions] == [1, 2]
    assert sorted(path.name for path in settings.tar_dir.iterdir()) == ["notes.txt", f"{environment}-x-3.tar"]
    with pytest.raises(NotFound, match="no tarball"):
        await service.delete_tarballs(environment)


async def test_one_export_of_an_environment_at_a_time(
    service: EnvironmentService, environment: str, container: str
) -> None:
    results = await asyncio.gather(
        *(service.create_tar(environment) for _ in range(3)), return_exceptions=True
    )
    assert sum(isinstance(result, Tarball) for result in results) == 1
    refused = [result for result in results if isinstance(result, Conflict)]
    assert len(refused) == 2
    assert "is being exported" in str(refused[0])


@pytest.fixture
def small_disk(settings: EnvironmentSettings) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    settings.tar_dir.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(settings.tar_dir)], check=True)
    yield
    subprocess.run(["umount", str(settings.tar_dir)], check=True)


@pytest.mark.usefixtures("small_disk")
async def test_a_full_disk_is_said_and_the_version_in_use_stays(
    api: DockerApi,
    service: EnvironmentService,
    settings: EnvironmentSettings,
    environment: str,
    container: str,
) -> None:
    (settings.tar_dir / f"{environment}-5.tar").write_bytes(b"the version in use")
    base = await _image_id(api, f"{environment}-busybox:1")
    await tag_image(api, base, f"kohakuriver/{environment}", "base")
    with pytest.raises(NoCapacity, match=f"no room for {environment}-"):
        await service.create_tar(environment)
    assert [path.name for path in settings.tar_dir.iterdir()] == [f"{environment}-5.tar"]
    assert await _image_id(api, f"kohakuriver/{environment}:base") == base
    tags = [tag for row in await api.json("GET", "images/json") for tag in row.get("RepoTags") or ()]
    assert [tag for tag in tags if tag.startswith(f"kohakuriver/{environment}:")] == [
        f"kohakuriver/{environment}:base"
    ]
    assert await status_of(service, environment) == "running"


@pytest.mark.parametrize("step", ["save_image", "_put_in_place"])
async def test_an_export_that_is_cancelled_or_fails_leaves_no_file(
    service: EnvironmentService,
    settings: EnvironmentSettings,
    environment: str,
    container: str,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    real = getattr(tarball_store, step)

    def fail(*_arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async def hang(
        api: DockerApi, references: list[str], path: Path, on_progress: Callable[[str], None]
    ) -> int:
        await real(api, references, path, on_progress)
        written.set()
        await asyncio.Event().wait()
        return 0

    written = asyncio.Event()
    monkeypatch.setattr(tarball_store, step, hang if step == "save_image" else fail)
    export = asyncio.ensure_future(service.create_tar(environment))
    if step == "save_image":
        await written.wait()
        export.cancel()
    await asyncio.wait([export])
    assert export.cancelled() or isinstance(export.exception(), Unavailable)
    assert list(settings.tar_dir.iterdir()) == []
    monkeypatch.undo()
    await service.create_tar(environment)


async def test_partial_files_of_a_crash_go_and_what_is_written_or_foreign_stays(
    service: EnvironmentService, settings: EnvironmentSettings, environment: str
) -> None:
    settings.tar_dir.mkdir()
    names = (
        f".{environment}-5.tar.partial",
        f".{environment}-6.tar.partial",
        ".notes.partial",
        "x-5.tar.partial",
    )
    for name in names:
        (settings.tar_dir / name).write_text("half")
    with (settings.tar_dir / names[1]).open() as written:
        fcntl.flock(written, fcntl.LOCK_EX)
        assert await service.remove_stale_partials() == [names[0]]
    assert sorted(path.name for path in settings.tar_dir.iterdir()) == sorted(names[1:])


async def test_another_host_leaves_the_file_that_is_being_written(
    service: EnvironmentService, settings: EnvironmentSettings, environment: str, container: str
) -> None:
    run_in(container, "cat /dev/urandom | head -c 50000000 > /big")
    other = tarball_store.TarballStore(settings.tar_dir)
    export = asyncio.ensure_future(service.create_tar(environment))
    await wait_until(lambda: export.done() or any(settings.tar_dir.glob(".*.partial")), 60)
    assert await other.remove_stale_partials() == []
    tarball = await export
    assert tarball.size_bytes > 50_000_000


async def test_a_partial_file_is_no_version(
    service: EnvironmentService, settings: EnvironmentSettings, environment: str
) -> None:
    settings.tar_dir.mkdir()
    (settings.tar_dir / f".{environment}-5.tar.partial").write_text("half")
    with pytest.raises(NotFound):
        await service.inspect_tarballs(environment)


async def test_shared_storage_that_is_not_mounted_is_not_made_up(
    api: DockerApi, environment: str, busybox: str, tmp_path: Path
) -> None:
    settings = EnvironmentSettings(tmp_path / "not-mounted/tars", tmp_path / "not-mounted/shared_data")
    link = EngineLink()
    service = EnvironmentService(settings, link)
    await service.create_container(busybox, environment)
    with pytest.raises(Unavailable, match="cannot be written"):
        await service.create_tar(environment)
    assert not (tmp_path / "not-mounted").exists()
    await link.close()


async def test_a_host_without_docker_lists_tarballs_and_says_what_is_missing(
    settings: EnvironmentSettings, tmp_path: Path
) -> None:
    settings.tar_dir.mkdir()
    (settings.tar_dir / "lab-5.tar").write_text("")
    service = EnvironmentService(settings, EngineLink(f"unix://{tmp_path}/none.sock"))
    assert [found.name for found in await service.list_tarballs()] == ["lab"]
    with pytest.raises(Unavailable, match=r"Docker engine .* not answer"):
        await service.list_containers()


async def _image_id(api: DockerApi, reference: str) -> str:
    facts = await inspect_image(api, reference)
    assert facts is not None
    return facts.id


_EXPORT = """
import asyncio, sys
from pathlib import Path
from kohakuriver.host.environments.engine_link import EngineLink
from kohakuriver.host.environments.environment_settings import EnvironmentSettings
from kohakuriver.host.environments.service import EnvironmentService
settings = EnvironmentSettings(Path(sys.argv[1]), Path("/none"))
asyncio.run(EnvironmentService(settings, EngineLink()).create_tar(sys.argv[2]))
"""


async def test_a_host_killed_while_it_writes_leaves_no_tarball_and_the_next_export_clears_up(
    service: EnvironmentService, settings: EnvironmentSettings, environment: str, container: str
) -> None:
    run_in(container, "cat /dev/urandom | head -c 100000000 > /big")
    process = subprocess.Popen([sys.executable, "-c", _EXPORT, str(settings.tar_dir), environment])
    try:
        await wait_until(lambda: any(path.stat().st_size for path in settings.tar_dir.glob(".*.partial")), 60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -9, "it was killed while it wrote"
    with pytest.raises(NotFound):
        await service.inspect_tarballs(environment)
    run_in(container, "rm /big")
    tarball = await service.create_tar(environment)
    assert [path.name for path in settings.tar_dir.iterdir()] == [tarball.path.name]


async def test_a_tarball_from_the_end_of_time_is_named_before_nothing_can_be_newer(
    service: EnvironmentService,
    settings: EnvironmentSettings,
    environment: str,
    container: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.tar_dir.mkdir()
    (settings.tar_dir / f"{environment}-{10**12 - 1}.tar").write_text("")
    monkeypatch.setattr(service_module, "commit_whole", _never)
    with pytest.raises(Conflict, match="delete that tarball first"):
        await service.create_tar(environment)


async def _never(*_arguments: object) -> str:
    raise AssertionError("an image was made for a tarball that cannot be")


async def _with_a_volume(api: DockerApi, environment: str) -> str:
    """An image that declares `/data` a volume and brings a file in it."""
    reference = f"{environment}-volume:1"
    made = io.BytesIO(busybox_tree())
    with tarfile.open(fileobj=made, mode="a") as archive:
        file = tarfile.TarInfo("data/brought")
        file.size = 8
        archive.addfile(file, io.BytesIO(b"brought\n"))
    changes = ("VOLUME /data", "ENV KEPT=yes", "WORKDIR /data", 'CMD ["sh"]')
    await import_bytes(api, made.getvalue(), reference, *changes)
    return reference


def _say(image: str, script: str) -> str:
    argv = ["docker", "run", "--rm", image, "sh", "-c", script]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


async def test_what_lies_in_a_volume_of_the_image_is_exported(
    api: DockerApi, service: EnvironmentService, settings: EnvironmentSettings, environment: str
) -> None:
    await service.create_container(await _with_a_volume(api, environment), environment)
    container = f"kohakuriver-env-{environment}"
    run_in(container, "echo trained > /data/model; echo also > /elsewhere")
    subprocess.run(["docker", "exec", container, "busybox", "chown", "1234:77", "/data/model"], check=True)
    await service.create_tar(environment)
    assert await status_of(service, environment) == "running"
    for tag in await tags_of(api, environment):
        await api.json("DELETE", f"images/kohakuriver/{environment}:{tag}", params={"force": "true"})
    image = (await node_images(api, settings.tar_dir).ensure(ImageChoice(environment), ignore)).id
    assert (
        _say(image, "cat /data/brought /data/model /elsewhere; echo $KEPT") == "brought\ntrained\nalso\nyes\n"
    )
    assert _say(image, "busybox stat -c %u:%g /data/model") == "1234:77\n"
    facts = await api.json("GET", f"images/{image}/json")
    assert not facts["Config"].get("Volumes"), "what is put there later lies on the container's own disk"
    assert (facts["Config"].get("Entrypoint"), facts["Config"]["Cmd"]) in [([], ["sh"]), (None, ["sh"])]
    left = await api.json("GET", "containers/json", params={"all": "true"})
    assert [
        row for row in left if any("draft" in name and environment in name for name in row["Names"])
    ] == []


async def test_an_export_that_fails_leaves_no_draft_and_the_container_running(
    api: DockerApi, service: EnvironmentService, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.create_container(await _with_a_volume(api, environment), environment)
    before = {row["Id"] for row in await api.json("GET", "images/json", params={"all": "true"})}

    async def broken(*_: object) -> None:
        raise EngineFault("no room")

    monkeypatch.setattr(whole_disk, "copy_disk", broken)
    with pytest.raises(EngineFault, match="no room"):
        await service.create_tar(environment)
    assert await status_of(service, environment) == "running"
    made = {row["Id"] for row in await api.json("GET", "images/json", params={"all": "true"})} - before
    mine = [one for one in made if "KEPT=yes" in str(await api.json("GET", f"images/{one}/json"))]
    assert mine == []


async def test_a_container_with_volumes_is_migrated_with_what_lies_in_them(
    api: DockerApi, service: EnvironmentService, environment: str
) -> None:
    image = await _with_a_volume(api, environment)
    argv = [
        "docker",
        "run",
        "-d",
        "--name",
        environment,
        "-v",
        f"{environment}:/named",
        image,
        "sleep",
        "600",
    ]
    subprocess.run(argv, check=True, capture_output=True)
    try:
        subprocess.run(
            ["docker", "exec", environment, "sh", "-c", "echo a >/data/a; echo b >/named/b"], check=True
        )
        await service.migrate_container(environment)
        assert (
            run_in(f"kohakuriver-env-{environment}", "cat /data/brought /data/a /named/b")
            == "brought\na\nb\n"
        )
        made_of = (await api.json("GET", f"containers/kohakuriver-env-{environment}/json"))["Image"]
        await service.stop_container(environment)
        await service.delete_container(environment)
        assert await inspect_image(api, made_of) is None
    finally:
        await remove_container(api, environment)
        subprocess.run(["docker", "volume", "rm", "-f", environment], capture_output=True, check=False)
