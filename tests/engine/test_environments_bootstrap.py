"""The default environment of a new cluster: from a base image, from a Debian tree, from busybox."""

import asyncio
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import tag_image
from kohakuriver.host.environments import bootstrap, local_tree
from kohakuriver.host.environments.bootstrap import DefaultEnvironment
from kohakuriver.host.environments.engine_link import EngineLink
from kohakuriver.host.environments.environment_settings import EnvironmentSettings
from kohakuriver.host.environments.local_tree import DebianRecipe, busybox_tree, debian_recipe
from kohakuriver.host.environments.service import EnvironmentService
from kohakuriver.models.errors import Unavailable
from support.debian_tree import debian_tree_tar

pytest_plugins = ["support.image_fixtures"]
pytestmark = [pytest.mark.anyio, pytest.mark.docker]

Make = Callable[..., DefaultEnvironment]


@pytest.fixture
def settings(tmp_path: Path) -> EnvironmentSettings:
    return EnvironmentSettings(tmp_path / "tars", tmp_path / "shared_data")


@pytest.fixture
async def make(api: DockerApi, settings: EnvironmentSettings, environment: str) -> AsyncIterator[Make]:
    link = EngineLink()

    def made(base_image: str = "127.0.0.1:9/none:1", make_tree: object = _no_tree) -> DefaultEnvironment:
        return DefaultEnvironment(
            EnvironmentService(settings, link),
            link,
            environment,
            base_image,
            make_tree,  # type: ignore[arg-type]
        )

    yield made
    await link.close()


async def _no_tree(_recipe: DebianRecipe, _archive: Path, _report: Callable[[str], None]) -> None:
    raise Unavailable("no mmdebstrap here")


def _run(environment: str, *command: str) -> str:
    argv = ["docker", "run", "--rm", f"kohakuriver/{environment}:base", *command]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


async def test_a_base_image_that_is_here_becomes_the_environment(
    make: Make, environment: str, busybox: str, settings: EnvironmentSettings
) -> None:
    default = make(busybox)
    await default.ensure_default_environment()
    assert (default.faults(), default.progress()) == ([], None)
    (tarball,) = settings.tar_dir.iterdir()
    assert tarball.name.startswith(f"{environment}-")
    assert _run(environment, "echo", "it runs") == "it runs\n"


async def test_a_tarball_that_is_there_is_kept(
    make: Make, environment: str, busybox: str, settings: EnvironmentSettings
) -> None:
    settings.tar_dir.mkdir()
    (settings.tar_dir / f"{environment}-5.tar").write_text("by hand")
    await make(busybox).ensure_default_environment()
    assert [path.read_text() for path in settings.tar_dir.iterdir()] == ["by hand"]


async def test_a_base_image_is_pulled_where_its_registry_answers(
    api: DockerApi, make: Make, environment: str, busybox: str, registry: str
) -> None:
    reference = f"{registry}/{environment}/base:1"
    await tag_image(api, busybox, f"{registry}/{environment}/base", "1")
    subprocess.run(["docker", "push", "--quiet", reference], check=True, capture_output=True)
    await api.json("DELETE", f"images/{reference}")
    said: list[str] = []
    await make(reference).ensure_default_environment(said.append)
    assert said[0] == f"pulling {reference}"
    assert _run(environment, "echo", "it runs") == "it runs\n"


async def test_busybox_serves_where_nothing_else_can_be_had(make: Make, environment: str) -> None:
    default = make()
    said: list[str] = []
    await default.ensure_default_environment(said.append)
    assert default.faults() == []
    assert any("cannot be pulled" in sentence for sentence in said)
    assert any("busybox must do" in sentence for sentence in said)
    assert _run(environment, "sh", "-c", "id -un; ls -d /tmp") == "root\n/tmp\n"


async def test_a_debian_tree_with_python_is_made_where_no_registry_answers(
    make: Make, environment: str
) -> None:
    """The slow one: half a minute when the tree is not in the cache."""

    async def cached(_recipe: DebianRecipe, archive: Path, _report: Callable[[str], None]) -> None:
        tree = await debian_tree_tar()
        await asyncio.to_thread(subprocess.run, ["cp", str(tree), str(archive)], check=True)

    default = make(make_tree=cached)
    await default.ensure_default_environment()
    assert default.faults() == []
    assert _run(environment, "python3", "-c", "print(6 * 7)") == "42\n"
    assert _run(environment, "bash", "-c", "apt-get --version | head -c 3") == "apt"


async def test_a_registry_that_falls_silent_is_given_up(
    api: DockerApi, make: Make, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "_PULL_SILENCE_SECONDS", 0.3)

    async def silence(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)  # holding the writer: from Python 3.13 on, one that nobody holds is closed

    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    said: list[str] = []
    default = make(f"127.0.0.1:{port}/silent:1")
    began = time.monotonic()
    await default.ensure_default_environment(said.append)
    assert time.monotonic() - began < 10, "a silent registry is not waited for"
    server.close()
    assert any("cannot be pulled (no answer for" in sentence for sentence in said)
    assert default.faults() == []


async def test_without_docker_the_fault_says_what_is_missing(
    settings: EnvironmentSettings, tmp_path: Path
) -> None:
    link = EngineLink(f"unix://{tmp_path}/none.sock")
    default = DefaultEnvironment(EnvironmentService(settings, link), link, "lab", "python:3.12-alpine")
    await default.ensure_default_environment()
    (fault,) = default.faults()
    assert "no default environment lab" in fault
    assert "Docker engine" in fault


async def test_cancelled_it_leaves_nothing_behind(
    api: DockerApi, make: Make, environment: str, settings: EnvironmentSettings, tmp_path: Path
) -> None:
    begun = asyncio.Event()
    folders: list[Path] = []

    async def endless(_recipe: DebianRecipe, archive: Path, _report: Callable[[str], None]) -> None:
        folders.append(archive.parent)
        begun.set()
        await asyncio.Event().wait()

    default = make(make_tree=endless)
    work = asyncio.ensure_future(default.ensure_default_environment())
    await begun.wait()
    work.cancel()
    await asyncio.wait([work])
    assert work.cancelled()
    assert not folders[0].exists()
    assert list(settings.tar_dir.iterdir()) == []
    filters = json.dumps({"reference": [f"kohakuriver/{environment}"]})
    assert await api.json("GET", "images/json", params={"filters": filters}) == []


async def test_a_tree_in_the_making_ends_with_its_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = f"{uuid.uuid4().int % 10**9}"
    program = tmp_path / "mmdebstrap"
    program.write_text(f"#!/bin/sh\necho 'I: begun' >&2\nsleep {mark} &\nwait\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    begun = asyncio.Event()
    recipe = DebianRecipe("suite", "deb x suite main\n", ".list", "")
    work = asyncio.ensure_future(
        local_tree.make_debian_tree(recipe, tmp_path / "tree.tar", lambda _sentence: begun.set())
    )
    async with asyncio.timeout(10):
        await begun.wait()
    work.cancel()
    await asyncio.wait([work])
    left = [file for file in Path("/proc").glob("[0-9]*/cmdline") if mark.encode() in _read(file)]
    assert left == []


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("files", "wanted", "suffix"),
    [
        (
            {"debian.sources": "Types: deb\nSuites: lab lab-updates\n\nTypes: deb\nSuites: other-lab\n"},
            "Types: deb\nSuites: lab lab-updates\n",
            ".sources",
        ),
        (
            {"a.list": "# deb x lab main\ndeb [signed-by=/k] http://m/d lab main\ndeb http://m/d sid main\n"},
            "deb [signed-by=/k] http://m/d lab main\n",
            ".list",
        ),
        (
            {"a.list": "deb http://m/d lab-security main\ndeb http://m/d labrador main\n"},
            "deb http://m/d lab-security main\n",
            ".list",
        ),
    ],
)
async def test_sources_of_the_release_itself_make_the_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], wanted: str, suffix: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _program: "/usr/bin/mmdebstrap")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "os-release").write_text('ID=debian\nVERSION_CODENAME="lab"\n')
    for name, text in files.items():
        (tmp_path / "apt/sources.list.d" / name).write_text(text)
    recipe = debian_recipe(tmp_path)
    assert (recipe.suite, recipe.sources, recipe.sources_suffix) == ("lab", wanted, suffix)


async def test_a_machine_of_another_kind_makes_no_debian_tree(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text("ID=arch\n")
    with pytest.raises(Unavailable):
        debian_recipe(tmp_path)


async def test_a_busybox_that_needs_libraries_is_not_used(tmp_path: Path) -> None:
    for content in (b"\x7fELF\0\0/lib64/ld-linux-x86-64.so.2\0", b"#!/bin/sh\n"):
        (tmp_path / "busybox").write_bytes(content)
        with pytest.raises(Unavailable, match="busybox-static"):
            busybox_tree(tmp_path / "busybox")


async def test_what_went_wrong_is_tried_again_until_it_works(
    make: Make, busybox: str, settings: EnvironmentSettings, tmp_path: Path
) -> None:
    settings.tar_dir.write_text("in the way")
    default = make(busybox)
    work = asyncio.ensure_future(default.keep_trying(0.05))
    async with asyncio.timeout(20):
        while not default.faults():
            await asyncio.sleep(0.02)
        settings.tar_dir.unlink()
        await work
    assert default.faults() == []
    assert len(list(settings.tar_dir.iterdir())) == 1
