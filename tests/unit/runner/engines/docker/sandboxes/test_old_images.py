"""Which images of sandboxes are removed, of those that an engine lists."""

import asyncio
import time
from typing import Any

import pytest

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import Conflict
from kohakuriver.runner.engines.docker.sandboxes.image import REPOSITORY, remove_old_images

DAY_SECONDS = 24 * 3600


class Engine(DockerApi):
    """An engine's images, by tags and ages."""

    def __init__(self, ages: dict[str, int], in_use: str = "") -> None:
        self.ages = ages
        self.in_use = in_use

    async def json(self, method: str, path: str, **_options: Any) -> Any:
        if method == "GET":
            made = time.time()
            return [
                {"Created": int(made - age), "RepoTags": [f"{REPOSITORY}:{tag}"]}
                for tag, age in self.ages.items()
            ]
        tag = path.rpartition(":")[2]
        if tag == self.in_use:
            raise Conflict("a container uses it")
        del self.ages[tag]
        return []


@pytest.mark.parametrize("in_use", ["", "a"])
def test_all_but_the_present_the_young_and_the_used_go(in_use: str) -> None:
    engine = Engine(
        {"present": 900 * DAY_SECONDS, "a": 2 * DAY_SECONDS, "b": DAY_SECONDS + 9, "young": 60}, in_use
    )
    asyncio.run(remove_old_images(engine, f"{REPOSITORY}:present"))
    assert list(engine.ages) == ["present", *in_use, "young"]
