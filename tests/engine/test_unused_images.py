"""Images that nothing has wanted for long, on a real engine: which go, and which never do."""

import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import inspect_image, remove_image
from kohakuriver.runner.engines.contract.spec import ImageChoice, ReadyImage
from kohakuriver.runner.images.unused_images import ImageNeeds, UnusedImages
from kohakuriver.runner.images.used_images import NotedImages, UsedImages
from support.static_images import import_bytes, tree

pytestmark = [pytest.mark.docker, pytest.mark.anyio]
DAY = 86_400
RUN = uuid.uuid4().hex[:8]
MONTH = 30


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def pass_days(self, days: int) -> None:
        self.now += days * DAY


class Here:
    """Whatever is asked for is there."""

    async def ensure(self, image: ImageChoice, _on_progress: object) -> ReadyImage:
        return ReadyImage(str(image))


class Images:
    """Images of a test's own, the record of their uses, and the sweep over them."""

    def __init__(self, api: DockerApi, folder: Path) -> None:
        self.api = api
        self.clock = Clock()
        self.folder = folder
        self.used = UsedImages(folder / "used.json", self.clock)
        self.names: list[str] = []

    async def make(self, name: str) -> str:
        """An image whose like no other test has; returns its name."""
        await import_bytes(self.api, tree({"mark": f"{RUN} {name}".encode()}), name)
        self.names.append(name)
        return name

    async def use(self, *, environment: str | None = None, registry_image: str | None = None) -> None:
        choice = ImageChoice(environment, registry_image)
        await NotedImages(Here(), self.used).ensure(choice, lambda _: None)

    async def sweep(
        self, *, needed: tuple[str, ...] = (), environments: tuple[str, ...] | None = (), removes: bool = True
    ) -> tuple[int, int]:
        sweep = UnusedImages(self.api, self.used, self.folder, (reference("local"),), self.clock)
        return await sweep.sweep(MONTH, ImageNeeds(needed, environments), removes=removes)

    async def there(self, *names: str) -> list[str]:
        return [name for name in names if await inspect_image(self.api, name) is not None]


@pytest.fixture
async def images(tmp_path: Path) -> AsyncIterator[Images]:
    api = await DockerApi.connect()
    images = Images(api, tmp_path)
    yield images
    for name in images.names:
        await remove_image(api, name, force=True)
    await api.close()


def reference(name: str) -> str:
    return f"river-unused/{name}-{RUN}:1"


async def test_what_nothing_has_wanted_for_a_month_goes_and_nothing_else(images: Images) -> None:
    old, needed, local, running, foreign, young = [
        await images.make(reference(name))
        for name in ("old", "needed", "local", "running", "foreign", "young")
    ]
    container = await images.api.create_container(f"river-unused-{RUN}", {"Image": running, "Cmd": ["/x"]})
    try:
        for name in (old, needed, local, running):
            await images.use(registry_image=name)
        images.clock.pass_days(MONTH - 1)
        await images.use(registry_image=young)
        assert await images.sweep(needed=(needed,)) == (0, 0)
        images.clock.pass_days(2)
        everything = (old, needed, local, running, foreign, young)
        assert (await images.sweep(needed=(needed,), removes=False))[0] == 1
        assert await images.there(*everything) == list(everything), "a look removes nothing"
        assert (await images.sweep(needed=(needed,)))[0] == 1
        assert await images.there(*everything) == list(everything[1:])
    finally:
        await images.api.json("DELETE", f"containers/{container}", params={"force": "1"})
    images.clock.pass_days(MONTH - 1)
    await images.sweep(needed=(needed,))
    assert await images.there(running) == [running], "what a container uses is used as long as that is there"
    images.clock.pass_days(2)
    await images.sweep(needed=(needed,))
    assert await images.there(running, young, needed, local, foreign) == [needed, local, foreign]


async def test_an_environment_goes_only_once_it_is_no_more(images: Images) -> None:
    names = [f"unused-{letter}-{RUN}" for letter in "abc"]
    tags = [await images.make(f"kohakuriver/{name}:base") for name in names]
    dated = await images.make(f"kohakuriver/{names[0]}:1700000000")
    for name in names:
        await images.use(environment=name)
    (images.folder / f"{names[1]}-1700000000.tar").write_bytes(b"")
    images.clock.pass_days(MONTH + 1)
    assert await images.sweep(environments=None) == (0, 0), "nobody knows which there are"
    assert (await images.sweep(environments=(names[2],)))[0] == 1
    assert await images.there(*tags, dated) == tags[1:]


async def test_a_use_that_comes_during_the_removal_brings_the_image_anew(images: Images) -> None:
    name = await images.make(reference("wanted"))
    await images.use(registry_image=name)
    images.clock.pass_days(MONTH + 1)
    async with images.used.lock:
        before = dict(await images.used.records())
    await images.use(registry_image=name)
    assert before != await images.used.records()
    assert await images.sweep() == (0, 0)
    assert await images.there(name) == [name]


async def test_uses_outlive_the_runner_and_a_damaged_record_removes_nothing(images: Images) -> None:
    name = await images.make(reference("kept"))
    await images.use(registry_image=name)
    images.clock.pass_days(MONTH + 1)
    (images.folder / "used.json").rename(images.folder / "aside.json")
    images.used = UsedImages(images.folder / "used.json", images.clock)
    assert await images.sweep() == (0, 0)
    (images.folder / "used.json").write_bytes(b"{not json")
    images.used = UsedImages(images.folder / "used.json", images.clock)
    assert await images.sweep() == (0, 0)
    (images.folder / "aside.json").rename(images.folder / "used.json")
    images.used = UsedImages(images.folder / "used.json", images.clock)
    assert (await images.sweep())[0] == 1
    assert await images.there(name) == []
