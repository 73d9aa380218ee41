"""Images onto a node, on the real engine."""

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp.web
import pytest

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import (
    load_stream,
    pull_image,
    remove_image,
    save_image,
    tag_image,
)
from kohakuriver.dockerapi.tarballs import OpenTarball
from kohakuriver.models.errors import EngineFault, InvalidInput, NotFound
from kohakuriver.runner.engines.contract.faults import RegistryUnavailable
from kohakuriver.runner.engines.contract.spec import ImageChoice
from kohakuriver.runner.images import environment_images as module
from kohakuriver.runner.images.environment_images import EnvironmentImages
from support.engines.image_records import MakeTarball, id_of, ignore, node_images, tags_of
from support.engines.static_images import import_bytes, tree

pytest_plugins = ["support.engines.image_fixtures"]
pytestmark = [pytest.mark.anyio, pytest.mark.docker]


async def test_the_newest_tarball_is_loaded_tagged_and_replaces_older_versions(
    api: DockerApi, images: EnvironmentImages, environment: str, make_tarball: MakeTarball
) -> None:
    _, first = await make_tarball(900, b"first")
    assert (await images.ensure(ImageChoice(environment), ignore)).id == first
    assert await id_of(api, f"kohakuriver/{environment}:base") == first
    assert await tags_of(api, environment) == ["900", "base"]
    _, second = await make_tarball(1000, b"second")  # newer as a number, older as text
    await images.ensure(ImageChoice(environment), ignore)
    assert await id_of(api, f"kohakuriver/{environment}:base") == second
    assert await tags_of(api, environment) == ["1000", "base"]
    assert await id_of(api, first) is None
    assert (environment, "base") in [(image.name, image.tag) for image in await images.list()]


async def test_the_name_inside_a_tarball_moves_no_other_tag(
    api: DockerApi, images: EnvironmentImages, environment: str, busybox: str, tmp_path: Path
) -> None:
    victim = f"{environment}-victim:1"
    await tag_image(api, busybox, *victim.split(":"))
    await save_image(api, [victim], tmp_path / f"{environment}-5.tar")
    await remove_image(api, victim)
    await import_bytes(api, tree({"other": b"x"}), victim)
    before = await id_of(api, victim)
    await images.ensure(ImageChoice(environment), ignore)
    assert await id_of(api, victim) == before
    assert await id_of(api, f"kohakuriver/{environment}:base") == await id_of(api, busybox)


async def test_a_tarball_saved_by_id_without_any_name_is_loaded(
    api: DockerApi, images: EnvironmentImages, environment: str, busybox: str, tmp_path: Path
) -> None:
    image_id = await id_of(api, busybox)
    assert image_id
    await save_image(api, [image_id], tmp_path / f"{environment}-5.tar")
    await remove_image(api, busybox)
    await images.ensure(ImageChoice(environment), ignore)
    assert await id_of(api, f"kohakuriver/{environment}:5") == image_id


async def test_a_version_that_is_here_is_not_loaded_again_and_one_whose_tags_differ_is(
    api: DockerApi, images: EnvironmentImages, environment: str, make_tarball: MakeTarball
) -> None:
    _, image_id = await make_tarball(7)
    said: list[str] = []
    await images.ensure(ImageChoice(environment), said.append)
    assert said
    said.clear()
    await images.ensure(ImageChoice(environment), said.append)
    assert said == []
    await import_bytes(api, tree({"other": b"x"}), f"kohakuriver/{environment}:base")
    other = await id_of(api, f"kohakuriver/{environment}:base")
    assert other
    await images.ensure(ImageChoice(environment), said.append)
    assert await id_of(api, f"kohakuriver/{environment}:base") == image_id
    assert await id_of(api, other) is None, "an image that nothing names any more is no use to anybody"


async def test_concurrent_callers_share_one_load(
    api: DockerApi, images: EnvironmentImages, environment: str, make_tarball: MakeTarball
) -> None:
    _, image_id = await make_tarball(7)
    since = time.time()
    said: list[list[str]] = [[] for _ in range(8)]
    await asyncio.gather(*(images.ensure(ImageChoice(environment), sentences.append) for sentences in said))
    events = await _image_events(api, since, "tag")
    assert sum(event["Actor"]["ID"] == image_id for event in events) == 2, "base and time, once each"
    assert all(said), "everybody sees the progress"


async def test_one_caller_that_gives_up_leaves_the_sync_to_the_others(
    api: DockerApi,
    images: EnvironmentImages,
    environment: str,
    make_tarball: MakeTarball,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await make_tarball(7)
    gate = _Gate(monkeypatch)
    first = asyncio.ensure_future(images.ensure(ImageChoice(environment), ignore))
    await gate.reached.wait()
    second = asyncio.ensure_future(images.ensure(ImageChoice(environment), ignore))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    gate.open.set()
    assert (await second).id == await id_of(api, f"kohakuriver/{environment}:base")
    assert gate.passed == 1


async def test_a_sync_nobody_waits_for_any_more_ends_and_the_next_begins_anew(
    images: EnvironmentImages,
    environment: str,
    make_tarball: MakeTarball,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await make_tarball(7)
    gate = _Gate(monkeypatch)
    only = asyncio.ensure_future(images.ensure(ImageChoice(environment), ignore))
    await gate.reached.wait()
    only.cancel()
    await asyncio.wait([only])
    assert gate.cancelled == 1
    gate.open.set()
    await images.ensure(ImageChoice(environment), ignore)
    assert gate.passed == 1


async def test_different_images_are_synced_side_by_side(
    api: DockerApi,
    tmp_path: Path,
    environment: str,
    busybox: str,
    make_tarball: MakeTarball,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await make_tarball(7)
    gate = _Gate(monkeypatch)
    images = node_images(api, tmp_path, local_images=(busybox,))
    slow = asyncio.ensure_future(images.ensure(ImageChoice(environment), ignore))
    await gate.reached.wait()
    assert (await images.ensure(ImageChoice(registry_image=busybox), ignore)).id == await id_of(api, busybox)
    gate.open.set()
    await slow


async def test_a_load_that_takes_too_long_names_the_setting_and_the_next_try_works(
    api: DockerApi,
    environment: str,
    make_tarball: MakeTarball,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await make_tarball(7)
    images = node_images(api, tmp_path, 0.3)
    began = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(OpenTarball, "chunks", _half_and_never_more(OpenTarball.chunks))
        with pytest.raises(EngineFault, match=r"0\.3 seconds.*DOCKER_IMAGE_SYNC_TIMEOUT"):
            await images.ensure(ImageChoice(environment), ignore)
    assert time.monotonic() - began < 10
    assert await tags_of(api, environment) == []
    again = node_images(api, tmp_path)
    await again.ensure(ImageChoice(environment), ignore)
    assert await tags_of(api, environment) == ["7", "base"]


async def test_without_a_tarball_the_image_here_serves(
    api: DockerApi, images: EnvironmentImages, environment: str, busybox: str
) -> None:
    await tag_image(api, busybox, f"kohakuriver/{environment}", "base")
    assert (await images.ensure(ImageChoice(environment), ignore)).id == await id_of(api, busybox)


async def test_an_environment_whose_tarballs_were_deleted_is_none_any_more(
    api: DockerApi, images: EnvironmentImages, environment: str, make_tarball: MakeTarball
) -> None:
    """As on a node that was unreachable when it was deleted."""
    path, image_id = await make_tarball(7)
    await images.ensure(ImageChoice(environment), ignore)
    path.unlink()
    with pytest.raises(NotFound, match=f"no environment '{environment}'"):
        await images.ensure(ImageChoice(environment), ignore)
    path.parent.rename(path.parent.with_name("away"))
    try:
        assert (await images.ensure(ImageChoice(environment), ignore)).id == image_id, "storage may be away"
    finally:
        path.parent.with_name("away").rename(path.parent)
    await images.remove(environment)
    assert await tags_of(api, environment) == []


async def test_an_unknown_environment_is_not_found_and_the_known_ones_are_listed(
    images: EnvironmentImages, environment: str, make_tarball: MakeTarball, tmp_path: Path
) -> None:
    (tmp_path / "shared-env-12.tar").write_bytes(b"")
    with pytest.raises(NotFound, match=f"no environment '{environment}'; there are: .*shared-env"):
        await images.ensure(ImageChoice(environment), ignore)


@pytest.mark.parametrize(
    "choice", [ImageChoice("../x"), ImageChoice(registry_image="file:///x"), ImageChoice()]
)
async def test_names_that_are_none_are_refused(images: EnvironmentImages, choice: ImageChoice) -> None:
    with pytest.raises(InvalidInput):
        await images.ensure(choice, ignore)


async def test_a_registry_image_is_pulled(
    api: DockerApi, images: EnvironmentImages, environment: str, busybox: str, registry: str
) -> None:
    reference = f"{registry}/lab/{environment}:3"
    await tag_image(api, busybox, f"{registry}/lab/{environment}", "3")
    subprocess.run(["docker", "push", "--quiet", reference], check=True, capture_output=True)
    image_id = await id_of(api, reference)
    await remove_image(api, reference)
    said: list[str] = []
    assert (await images.ensure(ImageChoice(registry_image=reference), said.append)).id == image_id
    assert await id_of(api, reference) == image_id
    assert said[0] == f"pulling {reference}"
    with pytest.raises((EngineFault, NotFound), match="cannot be pulled"):
        await images.ensure(ImageChoice(registry_image=f"{registry}/lab/{environment}:none"), ignore)


async def test_a_registry_that_does_not_answer_is_an_error_that_names_the_image(
    api: DockerApi, tmp_path: Path
) -> None:
    images = node_images(api, tmp_path, 2)
    with pytest.raises(
        RegistryUnavailable, match=r"127\.0\.0\.1:9/lab/x:1 was not pulled .* and cannot be pulled"
    ):
        await images.ensure(ImageChoice(registry_image="127.0.0.1:9/lab/x:1"), ignore)


@pytest.mark.parametrize(
    ("reference", "query"),
    [
        ("ubuntu", ("ubuntu", "latest")),
        ("127.0.0.1:5/a/b", ("127.0.0.1:5/a/b", "latest")),
        ("127.0.0.1:5/a/b:2", ("127.0.0.1:5/a/b", "2")),
        ("a@sha256:" + "0" * 64, ("a", "sha256:" + "0" * 64)),
    ],
)
async def test_a_pull_asks_for_one_tag_and_an_error_inside_its_stream_is_an_error(
    reference: str, query: tuple[str, str]
) -> None:
    asked: list[tuple[str, str]] = []

    async def answer(request: aiohttp.web.Request) -> aiohttp.web.Response:
        if request.path.endswith("/version"):
            return aiohttp.web.json_response({"ApiVersion": "1.41"})
        asked.append((request.query["fromImage"], request.query["tag"]))
        lines = [
            {"status": "Downloading", "id": "a", "progressDetail": {"current": 40 << 20}},
            {"error": "no room"},
        ]
        return aiohttp.web.Response(text="\r\n".join(map(json.dumps, lines)))

    said: list[str] = []
    async with _engine(answer) as engine:
        with pytest.raises(EngineFault, match="no room"):
            await pull_image(engine, reference, said.append)
    assert asked == [query]
    assert said == [f"pulling {reference}: 40 MB so far"]


class _Gate:
    """Holds loads back until `open` is set, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()
        self.passed = self.cancelled = 0
        self._load = load_stream
        monkeypatch.setattr(module, "load_stream", self._gated)

    async def _gated(self, *arguments: object) -> list[str]:
        self.reached.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.passed += 1
        return await self._load(*arguments)  # type: ignore[arg-type]


def _half_and_never_more(chunks: Callable[..., AsyncIterator[bytes]]) -> Callable[..., AsyncIterator[bytes]]:
    async def half(archive: object) -> AsyncIterator[bytes]:
        async for chunk in chunks(archive):
            yield chunk[: len(chunk) // 2]
            await asyncio.Event().wait()

    return half


async def _image_events(api: DockerApi, since: float, event: str) -> list[dict[str, dict[str, str]]]:
    filters = json.dumps({"type": ["image"], "event": [event]})
    params = {"since": f"{since:.6f}", "until": f"{time.time():.6f}", "filters": filters}
    async with api.stream("GET", "events", params=params) as response:
        return [json.loads(line) for line in (await response.read()).splitlines() if line]


class _engine:
    """An engine of ten lines that gives the answers that a real one gives only on bad days."""

    def __init__(self, answer: Callable[[aiohttp.web.Request], object]) -> None:
        application = aiohttp.web.Application()
        application.router.add_route("*", "/{path:.*}", answer)  # type: ignore[arg-type]
        self._runner = aiohttp.web.AppRunner(application)

    async def __aenter__(self) -> DockerApi:
        await self._runner.setup()
        site = aiohttp.web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self._api = await DockerApi.connect(f"http://{host}:{port}")
        return self._api

    async def __aexit__(self, *_error: object) -> None:
        await self._api.close()
        await self._runner.cleanup()


async def test_other_images_of_ours_are_no_environments(
    api: DockerApi, images: EnvironmentImages, environment: str, busybox: str
) -> None:
    await tag_image(api, busybox, f"kohakuriver/{environment}", "v1-amd64")
    await tag_image(api, busybox, f"kohakuriver/{environment}-x", "base")
    names = [image.name for image in await images.list()]
    assert (environment in names, f"{environment}-x" in names) == (False, True)
